"""Several fine-tunes of one net, planned for as one net: a family may have layers of all of them.

The layers of the whole are those of every variant, each name behind the number of its net: `2.layer1.0.conv1`. A family
that spans the variants stores its shared tensors once for all of them, so that the knapsack weighs them right. Every
scheme of the recipe forms families in two ways: of all layers that can share, and of the same layer in every variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from ...core.choices import Database
from ...core.errors import ModelError, PlanError
from ...core.specs import Family, Layer, ModelRef, Plan, Progress, Shape
from ...inputs.recipe import Assignment, Recipe, alternatives
from ...schemes import SCHEMES, scheme_of
from ..analyze.moments import Moments
from ..analyze.targets import shapes_of
from .database import SurveyedNet, build_database
from .edited import restate
from .families import form_families, no_saving


@dataclass(frozen=True)
class Variant:
    """A fine-tune: its net with the reasons of the recipe, what the recipe says about each layer, and its moments."""

    net: SurveyedNet
    assignments: tuple[Assignment, ...]
    moments: Moments


def require_alike(nets: Sequence[Sequence[Layer]]) -> None:
    """Raise PlanError KD512 unless the layers to convert are the same in every net. Others may differ."""
    first = {layer.name: (layer.shape, layer.groups) for layer in nets[0] if layer.reason is None}
    for number, layers in enumerate(nets[1:], 2):
        own = {layer.name: (layer.shape, layer.groups) for layer in layers if layer.reason is None}
        odd = next((name for name in (*first, *own) if first.get(name) != own.get(name)), None)
        if odd is not None:
            has, had = (_described(one.get(odd)) for one in (own, first))
            raise PlanError(
                "KD512", f"{odd}: {has} in net {number}, and {had} in the first; give fine-tunes of one net"
            )


def together(variants: Sequence[Variant]) -> Variant:
    """All variants as one net."""
    nets = [variant.net for variant in variants]
    sizes = [net.bytes for net in nets]
    whole = SurveyedNet(
        nn.ModuleList(net.model for net in nets),
        ModelRef(" and ".join(dict.fromkeys(net.ref.name for net in nets))),
        tuple(replace(layer, name=f"{n}.{layer.name}") for n, net in enumerate(nets) for layer in net.layers),
        sum(net.macs for net in nets),
        None if None in sizes else sum(size for size in sizes if size is not None),
    )
    assignments = tuple(
        replace(one, layer=f"{n}.{one.layer}") for n, variant in enumerate(variants) for one in variant.assignments
    )
    moments = {f"{n}.{name}": own for n, variant in enumerate(variants) for name, own in variant.moments.items()}
    return Variant(whole, assignments, moments)


def bank_database(whole: Variant, recipe: Recipe, progress: Progress | None = None) -> Database:
    """The database of all variants. No family takes more in one variant than its dense kernels there.

    Raises:
        ModelError: KD306 if no layers can share.
    """
    layers = whole.net.layers
    families = _families(layers, recipe, whole.assignments)
    inside = {name for family in families for name in family.members}
    net = replace(whole.net, layers=tuple(layer if layer.name in inside else _outside(layer) for layer in layers))

    def bound(family: Family) -> int:
        return min(scheme_of(family).limit(shapes_of(part, layers)) for part in _parts(family))

    return build_database(net, families, recipe, whole.moments, bound=bound, progress=progress)


def variant_plan(plan: Plan, number: int, net: SurveyedNet, recipe: Recipe) -> Plan:
    """The plan of one variant, with its own totals, from that of all of them."""
    families = [replace(family, members=members_of(family.members, number)) for family in plan.families]
    layers = [(layer, members_of((layer.name,), number)) for layer in plan.layers]
    own = Plan(
        net.ref,
        tuple(family for family in families if family.members),
        tuple(replace(layer, name=name) for layer, names in layers for name in names),
        plan.original,
        plan.planned,
        seed=plan.seed,
    )
    return restate(own, net, recipe)


def members_of(names: Sequence[str], number: int) -> tuple[str, ...]:
    """The names of the layers of one variant, as it names them."""
    return tuple(name.removeprefix(f"{number}.") for name in names if name.startswith(f"{number}."))


def _families(layers: Sequence[Layer], recipe: Recipe, assignments: Sequence[Assignment]) -> list[Family]:
    reasons = {layer.name: layer.reason for layer in layers}
    ways = [tuple(replace(one, reason=one.reason or reasons[one.layer]) for one in assignments)]
    ways += alternatives(recipe, ways[0])
    found: dict[str, Family] = {}
    error: ModelError | None = None
    for way in ways:
        for assigned in (way, _by_layer(way)):
            try:
                formed = form_families(layers, assigned)[1]
            except ModelError as none:
                if none.code != "KD306":
                    raise
                error = none
                continue
            found |= {repr(family): family for family in formed if _saves(family, layers)}
    if not found:
        raise error or ModelError("KD306", "no layer of these nets takes less when it shares with the others")
    return list(found.values())


def _by_layer(assignments: Sequence[Assignment]) -> list[Assignment]:
    """The same, with a family for each layer of the net, of all variants."""

    def alone(one: Assignment) -> Assignment:
        shares = one.scheme is not None and SCHEMES[one.scheme].shares
        return replace(one, family=one.layer.partition(".")[2]) if shares and one.family is None else one

    return [alone(one) for one in assignments]


def _parts(family: Family) -> list[Family]:
    """The family in each variant, with the names of the whole."""
    numbers = dict.fromkeys(name.partition(".")[0] for name in family.members)
    return [
        replace(family, members=tuple(name for name in family.members if name.partition(".")[0] == number))
        for number in numbers
    ]


def _saves(family: Family, layers: Sequence[Layer]) -> bool:
    return all(no_saving(part, layers) is None for part in _parts(family))


def _outside(layer: Layer) -> Layer:
    return replace(layer, reason=layer.reason or "KD110")


def _described(layer: tuple[Shape, int] | None) -> str:
    return "it is not converted" if layer is None else f"a kernel of {list(layer[0])} in {layer[1]} groups"
