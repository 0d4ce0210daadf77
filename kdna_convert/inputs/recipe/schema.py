"""The keys of a recipe, their types and limits. The package's docstring shows them all."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, create_model, model_validator

from ...core.errors import RecipeError
from ...core.names import CodecName, MetricName, RoutingName, SchemeName, StepName
from ...core.specs import Options
from ..finetune import Settings, about, default_of, kind_of
from . import yamlfile
from .fields import Patterns, Share, Size, Time
from .sizes import parse_target


def _routing(value: object) -> object:
    return {"name": value or "none"} if value is None or isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


RoutingOrNone = Literal[RoutingName, "none"]


class Routing(_Section):
    """What makes a layer depend on its input: a name of ROUTINGS, or none; the other keys are its options."""

    model_config = ConfigDict(extra="allow")

    name: RoutingOrNone

    @property
    def options(self) -> Options:
        return dict(self.model_extra or {})


SchemeOrDense = Literal[SchemeName, "dense"]
# The scheme of layers that stay as they are: no entry of SCHEMES, for it has nothing to fit.
DENSE = "dense"
RoutingField = Annotated[Routing, BeforeValidator(_routing, json_schema_input_type=RoutingOrNone | Routing | None)]


class Rule(_Section):
    """What becomes of the layers that `layers` names. Fields left out are the recipe's."""

    layers: Annotated[Patterns, Field(min_length=1)]
    scheme: SchemeOrDense | None = None
    options: Options = {}
    routing: RoutingField | None = None
    family: Literal["together"] | None = None


class Alternative(_Section):
    """A scheme that the plan may use in place of the recipe's, for layers that no rule claims, where it loses less."""

    scheme: SchemeName
    options: Options = {}


class Families(_Section):
    """Which of the layers that can share do: all of them (group), clusters of similar ones, or those that gain by it.

    gain, the default, is group, but 1x1 layers stay alone where that predicts less error at equal parameters.
    """

    by: Literal["gain", "group", "cluster"] = "gain"
    metric: MetricName = "explained"
    linkage: Literal["average", "complete", "single"] = "average"
    threshold: float | None = Field(None, ge=0, le=1)
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_cut(self) -> Families:
        if self.threshold is not None and self.count is not None:
            raise ValueError("threshold and count exclude each other")
        if self.by != "cluster" and not self.model_fields_set <= {"by"}:
            raise ValueError("metric, linkage, threshold and count need `by: cluster`")
        return self


class Budget(_Section):
    """How large the result may be: parameters and MACs as a share of the whole net's, or the file in bytes."""

    params: Share | None = None
    bytes: Size | None = None
    macs: Share | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one of params, bytes and macs is wanted")
        return self


class Calibration(_Section):
    """The unlabelled images that moments come from, and those held back to measure the divergence on."""

    images: int = Field(1000, ge=1)
    heldout: int = Field(500, ge=0)
    batch: int = Field(100, ge=1)
    memory: Size = 4 * 2**30


class Fit(_Section):
    """How long the joint fit of a family may take, in iterations of its search; None: as long as convert.py says.

    `progressive`: steps of a fine-tune after every family; None: all are fitted at once and none is trained.
    """

    sweeps: int | None = Field(None, ge=1)
    progressive: int | None = Field(None, ge=1)


class RepairStep(_Section):
    """A step of the repair: a name of repair.STEPS; the other keys are its options."""

    model_config = ConfigDict(extra="allow")

    name: StepName

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
        return Time | None, None
    limits, kind, default = about(name).limits, kind_of(name), default_of(name)
    bounds = {"gt": limits.above, "ge": limits.least, "lt": limits.below}
    given: dict[str, Any] = {bound: value for bound, value in bounds.items() if value is not None}
    annotation = Annotated[kind, Field(**given)] if given else kind
    return (annotation | None if default is None else annotation), default


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
    """What `kdna run` makes of the recipe where less than the share `below` of the original's bytes is asked for.

    These fields then stand for the recipe's scheme, options, budget (of parameters), repair and fine-tune; at that size
    and above the recipe's own hold.
    """

    below: Share
    params: Share
    scheme: SchemeOrDense = "cp"
    options: Options = {}
    repair: tuple[RepairField, ...] = Field((), strict=False)
    finetune: Finetune | None = None


class Recipe(_Section):
    """A checked recipe. `text` is its YAML as given, `where` says where in it a key stands."""

    scheme: SchemeOrDense | None = None
    options: Options = {}
    routing: RoutingField = Routing(name="none")
    include: Patterns = ()
    exclude: Patterns = ()
    rules: tuple[Rule, ...] = Field((), strict=False)
    alternatives: tuple[Alternative, ...] = Field((), strict=False)
    families: Families = Families()
    budget: Budget | None = None
    calibration: Calibration = Calibration()
    fit: Fit = Fit()
    nested: bool = False
    codec: CodecName | None = None
    repair: tuple[RepairField, ...] = Field((), strict=False)
    finetune: Finetune | None = None
    sharing: Sharing | None = None
    seed: int = Field(0, ge=0)

    _text: str = PrivateAttr("")
    _places: yamlfile.Places = PrivateAttr(default_factory=lambda: yamlfile.Places("the recipe", {}))

    @model_validator(mode="after")
    def _has_a_scheme(self) -> Recipe:
        if self.alternatives and self.scheme in (None, DENSE):
            raise ValueError("alternatives are to a `scheme`, and the recipe has none")
        if self.scheme is None and not self.rules:
            raise ValueError("a recipe needs `scheme`, `rules` or both")
        for index, rule in enumerate(self.rules):
            if rule.scheme is None and self.scheme is None:
                raise ValueError(f"rules.{index} needs `scheme`, as the recipe has none")
        if self.finetune is not None and self.finetune.sampled and not self.nested:
            raise ValueError("`finetune.sampled` trains at sizes that are cut later, and needs `nested: true`")
        tunes = [own.finetune for own in (self, self.sharing) if own is not None and own.finetune is not None]
        if self.codec != "entropy" and any(one.train == "codes" for one in tunes):
            raise ValueError("`finetune.train: codes` is of what the entropy coder makes, and needs `codec: entropy`")
        if self.sharing is not None and self.codec is None:
            raise ValueError("`sharing` needs `codec`, as it is the coded file's size that decides")
        return self

    def at_size(self, target: float | str | None, whole: int) -> Recipe:
        """What the recipe comes to for a file of that size, of an original of `whole` bytes: with its `sharing` below
        the size named there, without that from there on.

        Raises PlanError KD506 for a target that is no size.
        """
        sharing = self.sharing
        if sharing is None:
            return self
        if target is None or parse_target(target, whole) >= parse_target(sharing.below, whole):
            return self.model_copy(update={"sharing": None})
        said: dict[str, Any] = {"scheme": sharing.scheme, "options": sharing.options, "repair": sharing.repair}
        said["finetune"] = sharing.finetune
        return self.model_copy(update={**said, "budget": Budget(params=sharing.params), "sharing": None})

    @property
    def text(self) -> str:
        """The YAML it was read from, comments and all; for a recipe built in Python, the YAML that says the same."""
        return self._text or yaml.safe_dump(self.model_dump(mode="json", exclude_unset=True), sort_keys=False)

    def where(self, *path: str | int) -> str:
        """'shared-cp.yaml line 7: rules.0.layers': the beginning of a message about that key."""
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
