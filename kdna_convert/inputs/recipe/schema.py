"""The keys of a recipe, their types and limits. The package's docstring shows all of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, create_model, model_validator

from ...core.errors import RecipeError
from ...core.plugin_names import CodecName, ExportChoice, MetricName, RoutingName, SchemeName, StepName, TaskName
from ...core.specs import Options
from ..finetune_settings import Settings, about, default_of, kind_of
from . import yamlfile
from .fields import Patterns, Share, Size, Target, Time
from .sizes import parse_count, parse_target


def _routing(value: object) -> object:
    return {"name": value or "none"} if value is None or isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


RoutingOrNone = Literal[RoutingName, "none"]


class RoutingChoice(_Section):
    """What makes a layer depend on its input. All other keys are the options of the routing."""

    model_config = ConfigDict(extra="allow")

    name: RoutingOrNone = Field(description="The routing, or none.")

    @property
    def options(self) -> Options:
        return dict(self.model_extra or {})


SchemeOrDense = Literal[SchemeName, "dense"]
# The scheme of layers that keep their weights. Not in SCHEMES, since there is nothing to fit.
DENSE = "dense"
RoutingField = Annotated[
    RoutingChoice, BeforeValidator(_routing, json_schema_input_type=RoutingOrNone | RoutingChoice | None)
]


class Rule(_Section):
    """What becomes of some layers. Missing keys are those of the recipe."""

    layers: Annotated[
        Patterns, Field(min_length=1, description="A pattern or a list of patterns of the layers' names.")
    ]
    scheme: SchemeOrDense | None = Field(None, description="The scheme of these layers.")
    options: Options = Field(
        {}, description="The fields of the scheme. They override those of the recipe, if the scheme is the same."
    )
    routing: RoutingField | None = Field(None, description="The routing of these layers.")
    family: Literal["together"] | None = Field(
        None, description="`together`: the layers form one family. Otherwise the recipe's `families` decides."
    )


class Alternative(_Section):
    """A scheme that the plan may use instead of the recipe's, for layers that no rule matches, where it loses less."""

    scheme: SchemeName = Field(description="The scheme.")
    options: Options = Field({}, description="The fields of the scheme.")


class Families(_Section):
    """Which of the layers that can share form a family."""

    by: Literal["gain", "group", "cluster"] = Field(
        "gain",
        description="`group`: all that can share. `gain`: the same, but 1x1 layers stay alone where that predicts less"
        " error at equal parameters. `cluster`: clusters of similar layers.",
    )
    metric: MetricName = Field("explained", description="The similarity of two layers, for clusters.")
    linkage: Literal["average", "complete", "single"] = Field("average", description="The similarity of two clusters.")
    threshold: float | None = Field(None, ge=0, le=1, description="Clusters merge down to this similarity.")
    count: int | None = Field(None, ge=1, description="The number of clusters in each group.")

    @model_validator(mode="after")
    def _one_cut(self) -> Families:
        if self.threshold is not None and self.count is not None:
            raise ValueError("set threshold or count, not both")
        if self.by != "cluster" and not self.model_fields_set <= {"by"}:
            raise ValueError("metric, linkage, threshold and count need `by: cluster`")
        return self


class Budget(_Section):
    """The size of the result. Exactly one of the keys is set."""

    params: Share | None = Field(None, description="Parameters, as a share of the whole net's.")
    bytes: Target | None = Field(
        None, description="Size of the file, such as 1.2MB, or a share of the original's, such as 5%."
    )
    macs: Share | None = Field(None, description="Multiply-adds, as a share of the whole net's.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("set exactly one of params, bytes and macs")
        return self


class Calibration(_Section):
    """The images for the conversion. Labels are not used."""

    images: int = Field(1000, ge=1, description="Images that calibrate the conversion.")
    heldout: int = Field(500, ge=0, description="Images that are held out to measure the divergence.")
    batch: int = Field(100, ge=1, description="Images in a batch.")
    memory: Size = Field(4 * 2**30, description="The memory limit for second moments, such as 4GiB.")


class Fit(_Section):
    """The joint fit of the families."""

    sweeps: int | None = Field(
        None,
        ge=1,
        description="The most iterations of the fit of a family. By default 150, and fewer for wide layers.",
    )
    progressive: int | None = Field(
        None,
        ge=1,
        description="Steps of a fine-tune after the fit of each family. By default there is none.",
    )


class RepairStep(_Section):
    """A repair step. All other keys are the options of the step."""

    model_config = ConfigDict(extra="allow")

    name: StepName = Field(description="The step.")

    @property
    def options(self) -> Options:
        return dict(self.model_extra or {})


def _step(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


RepairField = Annotated[
    RepairStep,
    BeforeValidator(_step, json_schema_input_type=StepName | RepairStep),
]


def _setting(name: str) -> tuple[Any, Any]:
    """The type and the default of a setting, as pydantic takes them; `time` is a length as it is written."""
    if name == "time":
        return Time | None, Field(None, description=about("seconds").help)
    limits, kind, default = about(name).limits, kind_of(name), default_of(name)
    bounds = {"gt": limits.above, "ge": limits.least, "lt": limits.below}
    given: dict[str, Any] = {bound: value for bound, value in bounds.items() if value is not None}
    annotation = Annotated[kind, Field(**given)] if given else kind
    annotation = annotation | None if default is None else annotation
    return annotation, Field(default, description=about(name).help)


# In the order of the command line's options.
_NAMES = ("train", "time", *(each.name for each in fields(Settings) if each.name not in ("train", "seconds", "seed")))


def _settings_model() -> Any:
    definitions: dict[str, Any] = {name: _setting(name) for name in _NAMES}
    return create_model("_Settings", __base__=_Section, **definitions)


class Finetune(_settings_model()):  # type: ignore[misc]  # its fields are those of Settings
    """How `kdna run` fine-tunes: the settings of `kdna finetune`, with the recipe's seed."""

    @model_validator(mode="after")
    def _can_be(self) -> Finetune:
        try:
            self.settings(0)
        except RecipeError as error:
            raise ValueError(error.message) from None
        return self

    def settings(self, seed: int) -> Settings:
        """The settings of the fine-tune."""
        given = {name: getattr(self, name) for name in _NAMES if name != "time"}
        return Settings(**given, seconds=self.time, seed=seed)


class Sharing(_Section):
    """The keys that `kdna run` uses instead of the recipe's, below a share of the original's bytes."""

    below: Share = Field(description="The share of the original's bytes below which these keys are used.")
    params: Share = Field(description="The budget of parameters, as a share of the whole net's.")
    scheme: SchemeOrDense = Field("cp", description="The scheme.")
    options: Options = Field({}, description="The fields of the scheme.")
    repair: tuple[RepairField, ...] = Field((), strict=False, description="The repair steps.")
    finetune: Finetune | None = Field(None, description="The fine-tune.")


class Recipe(_Section):
    """A validated recipe. `text` is its YAML as given, `where` the place of a key in it."""

    scheme: SchemeOrDense | None = Field(
        None, description="The scheme of every layer that no rule matches. Without it only the rules convert layers."
    )
    options: Options = Field(
        {}, description="The fields of the scheme, such as `rank`. Without a scheme, those of every rule's scheme."
    )
    routing: RoutingField = Field(
        RoutingChoice(name="none"), description="The routing of every layer that no rule matches."
    )
    include: Patterns = Field((), description="Patterns of layers to convert although they are excluded by default.")
    exclude: Patterns = Field((), description="Patterns of layers to keep as they are. It overrides every other key.")
    rules: tuple[Rule, ...] = Field(
        (),
        strict=False,
        description="Exceptions for some layers. Of several rules the one with the most specific pattern applies.",
    )
    alternatives: tuple[Alternative, ...] = Field(
        (),
        strict=False,
        description="Schemes that the plan may use instead of `scheme`, for layers that no rule matches.",
    )
    families: Families = Field(Families(), description="Which layers share kernels.")
    budget: Budget | None = Field(
        None, description="The size of the result. Without it every scheme needs a size, such as a rank."
    )
    task: TaskName | None = Field(
        None, description="What the outputs of the net mean. By default it is chosen from what the net returns."
    )
    calibration: Calibration = Field(Calibration(), description="The images for the conversion.")
    fit: Fit = Field(Fit(), description="The joint fit of the families.")
    nested: bool = Field(
        False, description="Order the directions of every family by importance, so that `kdna shrink` can cut it later."
    )
    codec: CodecName | None = Field(
        None, description="How the tensors of the file are stored. By default they are not coded."
    )
    repair: tuple[RepairField, ...] = Field(
        (),
        strict=False,
        description="Steps after the fit, in order. A step is kept if it lowers the divergence on held-out images.",
    )
    repair_time: Time | None = Field(
        None,
        description="The time limit of all repair steps together, such as 3m. Later layers are left as they are.",
    )
    finetune: Finetune | None = Field(
        None, description="What `kdna run` trains after the conversion, and how long. By default nothing."
    )
    sharing: Sharing | None = Field(None, description="Other keys for small files. It needs a codec.")
    export: ExportChoice | None = Field(
        None, description="What `kdna run` exports beside the folder at the end: a form of `kdna export --to`."
    )
    seed: int = Field(0, ge=0, description="The seed of every random choice.")

    _text: str = PrivateAttr("")
    _places: yamlfile.Places = PrivateAttr(default_factory=lambda: yamlfile.Places("the recipe", {}))

    @model_validator(mode="after")
    def _has_a_scheme(self) -> Recipe:
        if self.alternatives and self.scheme in (None, DENSE):
            raise ValueError("`alternatives` need a `scheme`, and the recipe has none")
        if self.scheme is None and not self.rules:
            raise ValueError("a recipe needs `scheme`, `rules` or both")
        for index, rule in enumerate(self.rules):
            if rule.scheme is None and self.scheme is None:
                raise ValueError(f"rules.{index} needs `scheme`, since the recipe has none")
        if self.finetune is not None and self.finetune.sampled and not self.nested:
            raise ValueError("`finetune.sampled` trains the sizes that `kdna shrink` cuts, and needs `nested: true`")
        finetunes = [each.finetune for each in (self, self.sharing) if each is not None and each.finetune is not None]
        if self.codec != "entropy" and any(finetune.train == "codes" for finetune in finetunes):
            raise ValueError("`finetune.train: codes` needs `codec: entropy`")
        if self.sharing is not None and self.codec is None:
            raise ValueError("`sharing` needs `codec`, since the size of the coded file decides")
        return self

    def at_size(self, target: float | str | None, whole: int) -> Recipe:
        """The recipe for a file of this size: below `sharing.below` with the keys of `sharing`, else without them.

        Args:
            target: The size of the file, in bytes or as a share. None is any size.
            whole: The bytes of the original.

        Raises:
            PlanError: KD506 for an invalid size.
        """
        sharing = self.sharing
        if sharing is None:
            return self
        if target is None or parse_target(target, whole) >= parse_count(sharing.below, whole):
            return self.model_copy(update={"sharing": None})
        keys: dict[str, Any] = {"scheme": sharing.scheme, "options": sharing.options, "repair": sharing.repair}
        keys["finetune"] = sharing.finetune
        return self.model_copy(update={**keys, "budget": Budget(params=sharing.params), "sharing": None})

    @property
    def fits(self) -> bool:
        """Whether kernels may be fitted: some scheme is not `dense`."""
        return any(scheme not in (None, DENSE) for scheme in (self.scheme, *(rule.scheme for rule in self.rules)))

    @property
    def text(self) -> str:
        """The YAML that it was read from, with comments; for a recipe built in Python, equivalent YAML."""
        return self._text or yaml.safe_dump(self.model_dump(mode="json", exclude_unset=True), sort_keys=False)

    def where(self, *path: str | int) -> str:
        """The place of a key, to start a message with: 'shared-cp.yaml line 7: rules.0.layers'."""
        return self._places(path)


SECTIONS: dict[str | int, type[BaseModel]] = {
    "rules": Rule,
    "alternatives": Alternative,
    "families": Families,
    "budget": Budget,
    "calibration": Calibration,
    "fit": Fit,
    "repair": RepairStep,
    "finetune": Finetune,
    "sharing": Sharing,
}
