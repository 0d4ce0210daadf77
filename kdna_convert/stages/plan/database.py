"""The database of a plan: families, their exact layouts, and a predicted error at a few sizes of each.

The error of a family at a size is the weighted output error that a quick fit leaves. It is computed once for a net, a
recipe and its moments; a plan for any budget is then solved from the database alone (knapsack.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from ...core.choices import Choice, Database, MemberMacs
from ...core.errors import NumericsError, RecipeError
from ...core.filesize import metadata
from ...core.linalg import Target
from ...core.side_by_side import side_by_side, workers
from ...core.specs import Family, Layer, ModelRef, Progress, Route, Shape, product
from ...inputs.recipe import Recipe
from ...network.chain import is_chainable
from ...network.stored import stored_specs
from ...routing import routing_of
from ...schemes import scheme_of
from ..analyze.moments import Moments
from ..analyze.targets import TargetStore, output_error, shapes_of
from .families import no_saving
from .joint_fit import is_wide, joint_fit
from .routes import gate_specs

Bound = Callable[[Family], int]
# Iterations of a quick fit.
QUICK = 20


@dataclass(frozen=True)
class SurveyedNet:
    """A net, where it came from, its surveyed layers, and its MACs per image; `bytes` as in Database."""

    model: nn.Module
    ref: ModelRef
    layers: tuple[Layer, ...]
    macs: int
    bytes: int | None = None


def build_database(
    net: SurveyedNet,
    families: Sequence[Family],
    recipe: Recipe,
    moments: Moments | None,
    *,
    divisible: Collection[int] = (),
    routes: Sequence[Route] = (),
    fingerprint: str = "",
    bound: Bound | None = None,
    progress: Progress | None = None,
) -> Database:
    """Build the database of a net: one choice per family.

    Args:
        net: The original net; its layers with the reasons of the recipe.
        families: The families, without a size where the plan chooses it.
        recipe: The recipe that formed them.
        moments: Predict errors by quick fits on these, for the families that leave a choice; None: predict nothing.
        divisible: Indices of `families` that are split into single layers if that lowers the predicted error.
        routes: The routes, the same at every budget.
        fingerprint: What the database is made from, for `read_database`.
        bound: A function for the largest size of a family, where that is below its scheme's.
        progress: Called before each family.

    Returns:
        The database. Layers that are in no family because no fit of theirs is finite have the reason KD130.

    Raises:
        RecipeError: KD207 for a size of the recipe that its scheme does not have.
        NumericsError: KD703 if no family has a finite fit.
    """
    routed = {name for route in routes for name in route.members}
    store = None if moments is None else TargetStore(net.model, moments)
    found: dict[int, list[Choice] | NumericsError] = {}

    def predict(number: int) -> list[Choice] | NumericsError:
        try:
            return _choices(net, families[number], recipe, store, routed, bound, divisible=number in divisible)
        except NumericsError as error:
            if error.code != "KD703":
                raise
            return error

    def report(number: int, count: int) -> None:
        if progress is not None:
            family = families[number]
            progress(f"predict: {family.members[0]} ({len(family.members)} layers)", count, len(families))

    wide = [number for number, family in enumerate(families) if store is None or is_wide(family, net.layers)]
    for number in wide:
        report(number, len(found))
        found[number] = predict(number)
    narrow = [number for number in range(len(families)) if number not in found]
    if store is not None:
        store.room //= workers()  # each worker keeps targets of its own
    tasks = [partial(predict, number) for number in narrow]
    results = side_by_side(tasks, lambda place: report(narrow[place], len(wide) + place))
    found |= dict(zip(narrow, results, strict=True))
    if progress is not None:
        progress("predict", len(families), len(families))
    unfit = {families[number].members: own for number, own in found.items() if isinstance(own, NumericsError)}
    choices = [choice for _, own in sorted(found.items()) if not isinstance(own, NumericsError) for choice in own]
    if unfit and not choices:
        raise next(iter(unfit.values()))
    order = {layer.name: place for place, layer in enumerate(net.layers)}
    gates, gate_params = gate_specs(net.model, routes)
    return Database(
        fingerprint=fingerprint,
        model=net.ref,
        layers=_explained(net.layers, unfit, choices),
        tensors=stored_specs(net.model),
        params=sum(parameter.numel() for parameter in net.model.parameters()),
        macs=net.macs,
        metadata=metadata(net.ref, recipe.text),
        choices=tuple(sorted(choices, key=lambda choice: order[choice.family.members[0]])),
        routes=tuple(routes),
        gates=gates,
        gate_params=gate_params,
        gate_macs=sum(routing_of(route).macs(route.layers) for route in routes),
        seed=recipe.seed,
        bytes=net.bytes,
    )


def _explained(
    layers: Sequence[Layer], unfit: Collection[tuple[str, ...]], choices: Sequence[Choice]
) -> tuple[Layer, ...]:
    """The layers, with KD130 for those that are in no family because none of theirs has a finite fit."""
    left = {name for members in unfit for name in members} - {n for choice in choices for n in choice.family.members}
    return tuple(replace(layer, reason="KD130") if layer.name in left else layer for layer in layers)


def _choices(
    net: SurveyedNet,
    family: Family,
    recipe: Recipe,
    store: TargetStore | None,
    routed: Collection[str],
    bound: Bound | None,
    *,
    divisible: bool,
) -> list[Choice]:
    """A family as one choice, or as one per layer if it is divisible and they have less predicted error."""

    def measured(choice: Choice, known: Mapping[int, float] | None = None) -> Choice:
        if store is None or choice.fixed is not None:
            return choice
        return replace(choice, points=_points(choice, store.targets(choice.family), recipe.seed, known or {}))

    whole = _choice(net, family, recipe, routed, bound)
    singles = [replace(family, members=(name,)) for name in family.members] if divisible else []
    if not singles or store is None or whole.fixed is not None or any(no_saving(one, net.layers) for one in singles):
        return [measured(whole)]
    split = [_choice(net, single, recipe, routed, bound) for single in singles]
    at_half = [_at_half(choice, store, recipe.seed) for choice in (whole, *split)]
    if sum(error for _, error in at_half[1:]) < at_half[0][1]:
        return [measured(choice, dict([known])) for choice, known in zip(split, at_half[1:], strict=True)]
    return [measured(whole, dict(at_half[:1]))]


def _at_half(choice: Choice, store: TargetStore, seed: int) -> tuple[int, float]:
    """The probed size nearest to half of the family's dense parameters, and the error of a quick fit there."""
    probes = scheme_of(choice.family).probes
    size = _size_at(choice, min(probes, key=lambda probe: abs(probe - 0.5)))
    return size, _error(choice, size, store.targets(choice.family), seed)


def _choice(net: SurveyedNet, family: Family, recipe: Recipe, routed: Collection[str], bound: Bound | None) -> Choice:
    scheme, shapes = scheme_of(family), shapes_of(family, net.layers)
    members = [layer for name in family.members for layer in net.layers if layer.name == name]
    fixed = family.options.get(scheme.size)
    limit = scheme.limit(shapes) if bound is None else min(scheme.limit(shapes), bound(family))
    if fixed is not None and not scheme.smallest <= fixed <= max(limit, scheme.smallest):
        raise RecipeError(
            "KD207",
            f"{_place(recipe, scheme.size, fixed)}: must be in {scheme.smallest}..{limit} for the family of "
            f"{family.members[0]}, got {fixed}; above, it would store more than its dense kernels",
        )
    options = {key: value for key, value in family.options.items() if key != scheme.size}
    dtype = next(spec.dtype for spec in stored_specs(net.model) if spec.name == f"{family.members[0]}.weight")
    return Choice(
        family=replace(family, options=options),
        size=scheme.size,
        smallest=scheme.smallest,
        limit=max(limit, scheme.smallest),
        layout=scheme.layout(shapes),
        macs=tuple(
            MemberMacs(layer.macs) if layer.name in routed else _macs(net.model, family, scheme.size, layer)
            for layer in members
        ),
        dtype=dtype,
        fixed=fixed,
    )


def _place(recipe: Recipe, size: str, value: int) -> str:
    """Where this size is set: the line and key of the recipe, or else a plan edited by hand."""
    rules = [("rules", index, "options") for index, rule in enumerate(recipe.rules) if rule.options.get(size) == value]
    own = [("options",)] if recipe.options.get(size) == value else []
    return next((recipe.where(*path, size) for path in (*rules, *own)), f"the plan: options.{size}")


def _macs(model: nn.Module, family: Family, size: str, layer: Layer) -> MemberMacs:
    """MACs as derive.factor runs the layer: factored if that costs less, else dense."""
    each, squared = _polynomial(family, size, layer.shape, layer.in_positions, layer.out_positions)
    if not each or not is_chainable(model.get_submodule(layer.name)):
        return MemberMacs(layer.macs)
    a, b = _polynomial(family, size, layer.shape, product(layer.stride), 1)
    sizes = range(1, product(layer.shape) + 1)
    below = bisect_left(sizes, product(layer.shape), key=lambda r: (a + b * r) * r)
    return MemberMacs(layer.macs, each, squared, below)


def _polynomial(family: Family, size: str, shape: Shape, ins: int, outs: int) -> tuple[int, int]:
    """The coefficients of size and size^2 in a scheme's factored MACs; zeros if it has no factored form."""
    one, two = (scheme_of(family, **{size: number}).macs(shape, ins, outs) for number in (1, 2))
    squared = (two - 2 * one) // 2
    return (0, 0) if one == two else (one - squared, squared)


def _points(choice: Choice, aims: Sequence[Target], seed: int, known: Mapping[int, float]) -> dict[int, float]:
    """The weighted output error of quick fits at a few sizes, where it is not known. It never rises with the size."""
    points: dict[int, float] = {}
    for size in sorted({_size_at(choice, probe) for probe in scheme_of(choice.family).probes}):
        error = known[size] if size in known else _error(choice, size, aims, seed)
        points[size] = min(max(error, 0.0), *points.values(), float("inf"))
    return points


def _size_at(choice: Choice, probe: float) -> int:
    """The size at this fraction of the way from the smallest to the largest."""
    return choice.smallest + round(probe * (choice.limit - choice.smallest))


def _error(choice: Choice, size: int, aims: Sequence[Target], seed: int) -> float:
    """The weighted output error of a quick fit."""
    variant = scheme_of(choice.family).variants()[-1]
    scheme = scheme_of(choice.family, **variant, **{choice.size: size})
    shared, adapters = joint_fit(choice.family, scheme, aims, seed=seed, sweeps=QUICK)
    return sum(
        aim.weight * output_error(scheme, shared, adapter, aim) for aim, adapter in zip(aims, adapters, strict=True)
    )
