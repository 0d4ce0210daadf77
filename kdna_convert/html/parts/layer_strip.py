"""The net as a strip of its layers, in order: how wide each is, in which family, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ...core.amounts import count, dimensions, percent, short
from ...core.errors import CODES
from ...core.specs import Family, Layer, Plan
from ..material import Material
from ..part import Column, Part, filled, table

COLORS = 8
# The most groups that have room for their names, and the ways to group: by the first part of a name, by the first two,
# and by the first without its number.
GROUPS = 24
STAGES: tuple[Callable[[str], str], ...] = (
    lambda name: name.split(".")[0],
    lambda name: ".".join(name.split(".")[:2]),
    lambda name: name.split(".")[0].rstrip("0123456789"),
)
# A part of a name that most layers begin with does not group them.
_MOST = 0.6


@dataclass(frozen=True)
class Strip:
    """A layer as it is drawn: its width and height, 0..1, its color and the facts that it shows when it is focused."""

    name: str
    width: float
    height: float
    color: int | None
    family: int | None
    skipped: bool
    facts: Sequence[tuple[str, str]]


def layers(material: Material) -> Part | None:
    """The strip, and the same as a table."""
    plan = material.plan
    known = plan.layers if plan is not None else material.analysis.layers if material.analysis else ()
    if not known:
        return None
    strips = [*_strips(known, plan, _errors(material))]
    groups = [(stage, [*rows]) for stage, rows in groupby(strips, key=lambda one: stage_of(one.name, known))]
    legend = [] if plan is None else legend_of(plan)
    columns = tuple(Column(name) for name in ("layer", *(name for name, _ in strips[0].facts)))
    rows = [(one.name, *(value for _, value in one.facts)) for one in strips]
    grid = table(columns, rows, "The layers as a table", folded=True)
    body = filled("layers.html", groups=groups, legend=legend, table=grid, codes=_codes(known))
    return Part("layers", "The layers", _sentence(known, plan), body)


def strips_of(known: Sequence[Layer], plan: Plan | None) -> list[Strip]:
    """The layers as they are drawn for a plan."""
    return [*_strips(known, plan, {})]


def legend_of(plan: Plan) -> list[tuple[int, str]]:
    """The color and the words of each family."""
    return [(place % COLORS, _family(place, each)) for place, each in enumerate(plan.families)]


def stage_of(name: str, known: Sequence[Layer]) -> str:
    """The stage of a layer: the leading parts of its name, as many as make a few groups of the layers."""
    first, two = ([stage(layer.name) for layer in known] for stage in STAGES[:2])
    apart = max(map(first.count, {*first})) <= _MOST * len(known)
    if len({*first}) > GROUPS:
        return STAGES[2](name)
    return STAGES[0](name) if apart or len({*two}) > GROUPS else STAGES[1](name)


def _sentence(known: Sequence[Layer], plan: Plan | None) -> str:
    what = f"{len(known)} layers in the order in which they are defined. The width of a bar is the layer's parameters"
    if plan is None:
        return f"{what}; layers that cannot be converted are hatched."
    shared = sum(len(family.members) for family in plan.families)
    families = "1 family" if len(plan.families) == 1 else f"{len(plan.families)} families"
    height = "its height the share of them that is kept, its color the family that it shares tensors with"
    shares = f"{shared} layers are in {families}" if shared else "No layer shares tensors"
    return f"{what}, {height}. {shares}. Hatched layers stay as they are, for the reason in their facts."


def _strips(known: Sequence[Layer], plan: Plan | None, errors: Mapping[str, float]) -> Iterator[Strip]:
    most = max(layer.params for layer in known)
    families = {} if plan is None else {name: place for place, one in enumerate(plan.families) for name in one.members}
    params = {layer.name: layer.params for layer in known}
    for layer in known:
        place = families.get(layer.name)
        kept, scheme, felt = 1.0, "-", None
        if plan is not None and place is not None:
            family = plan.families[place]
            stored, felt = plan.stored.get(family.members[0]), plan.predicted.get(family.members[0])
            whole = sum(params[name] for name in family.members)
            kept, scheme = 1.0 if stored is None else stored / whole, _scheme(family)
        facts = (
            ("kind", layer.kind),
            ("kernel", dimensions(layer.shape) + (f", {layer.groups} groups" if layer.groups > 1 else "")),
            ("parameters", count(layer.params)),
            ("MACs", short(layer.macs)),
            ("scheme", scheme),
            ("kept", percent(kept) if place is not None else "-"),
            ("relative error", f"{errors[layer.name]:.2e}" if layer.name in errors else "-"),
            ("error of its family as the loss feels it", "-" if felt is None else f"{felt:.2e}"),
            ("skipped", "" if layer.reason is None else f"{layer.reason}: {CODES[layer.reason]}"),
        )
        color = None if place is None else place % COLORS
        yield Strip(layer.name, layer.params / most, kept, color, place, layer.reason is not None, facts)


def _errors(material: Material) -> dict[str, float]:
    fits = material.report.families if material.report else None
    return {name: error for fit in fits or () for name, error in fit.errors.items()}


def _scheme(family: Family) -> str:
    values = ", ".join(f"{name} {value}" for name, value in family.options.items() if value is not None)
    return f"{family.scheme} ({values})" if values else family.scheme


def _family(place: int, family: Family) -> str:
    layers = "1 layer" if len(family.members) == 1 else f"{len(family.members)} layers"
    return f"family {place + 1}: {family.scheme}, {layers} from {family.members[0]}"


def _codes(known: Sequence[Layer]) -> list[str]:
    return [f"{code}: {CODES[code]}" for code in sorted({layer.reason for layer in known if layer.reason})]
