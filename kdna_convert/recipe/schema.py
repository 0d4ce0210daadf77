"""The keys of a recipe, their types and limits. The package's docstring shows them all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from ..errors import PlanError
from ..specs import Options
from . import patterns, yamlfile

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_size(size: int | str) -> int:
    """Bytes of 1200000, '1.2MB', '570 kB' or '4GiB' (kB is 1000, KiB is 1024). Raises PlanError KD506."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmg]i?)?b?", str(size).strip().lower())
    number = round(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if isinstance(size, bool) or number < 1:
        raise PlanError("KD506", f"{size!r} is not a size; write it like 1200000, 570kB, 1.2MB or 4GiB")
    return number


def parse_target(target: float | str, whole: int) -> int:
    """Bytes of a size as above, or of a share of the `whole`: 0.05, '5%' or '1/20'. Raises PlanError KD506."""
    text = str(target).strip()
    fraction = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:/\s*(\d+(?:\.\d*)?)|(%))?", text)
    if fraction and (fraction[2] or fraction[3] or float(fraction[1]) < 1):
        divisor = float(fraction[2] or 1) * (100 if fraction[3] else 1)
        if divisor and 0 < float(fraction[1]) / divisor <= 1:
            return int(whole * float(fraction[1]) / divisor)
        raise PlanError("KD506", f"{text!r} is not a share of the file; write it like 1/20, 5% or 0.05")
    return parse_size(text)


def _size(value: object) -> int:
    try:
        return parse_size(value if isinstance(value, int) else str(value))
    except PlanError as error:
        raise ValueError(error.message) from None


def _patterns(value: object) -> tuple[str, ...]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("a layer pattern or a list of them is wanted")
    return tuple(patterns.check(entry) for entry in entries)


def _routing(value: object) -> object:
    return {"name": value or "none"} if value is None or isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Routing(_Section):
    """What makes a layer depend on its input: a name of ROUTINGS, or none; the other keys are its options."""

    model_config = ConfigDict(extra="allow")

    name: Literal["se", "none"]

    @property
    def options(self) -> Options:
        return dict(self.model_extra or {})


SchemeName = Literal[
    "cp", "separable", "basis", "tucker", "output", "atoms", "warehouse", "codebook", "lowrank", "kerneldna", "dense"
]
CodecName = Literal["fp16", "bf16", "int8", "int4", "entropy"]
# The scheme of layers that stay as they are: no entry of SCHEMES, for it has nothing to fit.
DENSE = "dense"
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns, json_schema_input_type=str | list[str])]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
Share = Annotated[float, Field(gt=0, le=1)]
RoutingField = Annotated[
    Routing, BeforeValidator(_routing, json_schema_input_type=Literal["se", "none"] | Routing | None)
]


class Rule(_Section):
    """What becomes of the layers that `layers` names. Fields left out are the recipe's."""

    layers: Annotated[Patterns, Field(min_length=1)]
    scheme: SchemeName | None = None
    options: Options = {}
    routing: RoutingField | None = None
    family: Literal["together"] | None = None


class Families(_Section):
    """Which of the layers that can share do: all of them (group), clusters of similar ones, or those that gain by it.

    gain, the default, is group, but 1x1 layers stay alone where that predicts less error at equal parameters.
    """

    by: Literal["gain", "group", "cluster"] = "gain"
    metric: Literal["explained", "angles", "cka", "cosine"] = "explained"
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
    """How long the joint fit of a family may take, in iterations of its search; None: as long as convert.py says."""

    sweeps: int | None = Field(None, ge=1)


class RepairStep(_Section):
    """A step of the repair: a name of repair.STEPS; the other keys are its options."""

    model_config = ConfigDict(extra="allow")

    name: Literal["refit", "correct", "reestimate", "reconstruct"]

    @property
    def options(self) -> Options:
        return dict(self.model_extra or {})


def _step(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


RepairField = Annotated[
    RepairStep,
    BeforeValidator(
        _step, json_schema_input_type=Literal["refit", "correct", "reestimate", "reconstruct"] | RepairStep
    ),
]


class Places:
    """Where each key of a recipe stands: on a line of its file, or in a --set."""

    def __init__(self, name: str, lines: Mapping[yamlfile.Path, int | str]) -> None:
        self.name = name
        self.lines = dict(lines)

    def overridden(self, path: yamlfile.Path, place: str) -> None:
        """The key at `path`, all below it and every section that had to be made for it now stand at `place`."""
        self.lines = {old: line for old, line in self.lines.items() if old[: len(path)] != path}
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], place)

    def __call__(self, path: yamlfile.Path) -> str:
        """The nearest key above that is written down gives the line."""
        known = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in self.lines), None)
        line = None if known is None else self.lines[known]
        place = line if isinstance(line, str) else f"{self.name} line {line}" if line else self.name
        return f"{place}: {'.'.join(map(str, path))}" if path else place


class Recipe(_Section):
    """A checked recipe. `text` is its YAML as given, `where` says where in it a key stands."""

    scheme: SchemeName | None = None
    options: Options = {}
    routing: RoutingField = Routing(name="none")
    include: Patterns = ()
    exclude: Patterns = ()
    rules: tuple[Rule, ...] = Field((), strict=False)
    families: Families = Families()
    budget: Budget | None = None
    calibration: Calibration = Calibration()
    fit: Fit = Fit()
    nested: bool = False
    codec: CodecName | None = None
    repair: tuple[RepairField, ...] = Field((), strict=False)
    seed: int = Field(0, ge=0)

    _text: str = PrivateAttr("")
    _places: Places = PrivateAttr(default_factory=lambda: Places("the recipe", {}))

    @model_validator(mode="after")
    def _has_a_scheme(self) -> Recipe:
        if self.scheme is None and not self.rules:
            raise ValueError("a recipe needs `scheme`, `rules` or both")
        for index, rule in enumerate(self.rules):
            if rule.scheme is None and self.scheme is None:
                raise ValueError(f"rules.{index} needs `scheme`, as the recipe has none")
        return self

    @property
    def text(self) -> str:
        """The YAML it was read from, comments and all; for a recipe built in Python, the YAML that says the same."""
        return self._text or yaml.safe_dump(self.model_dump(mode="json", exclude_unset=True), sort_keys=False)

    def where(self, *path: str | int) -> str:
        """'shared-cp.yaml line 7: rules.0.layers': the beginning of a message about that key."""
        return self._places(path)


SECTIONS: dict[str | int, type[BaseModel]] = {
    "rules": Rule,
    "families": Families,
    "budget": Budget,
    "calibration": Calibration,
    "fit": Fit,
    "repair": RepairStep,
}
