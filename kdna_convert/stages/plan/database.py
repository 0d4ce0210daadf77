"""What a plan is chosen from: families, their exact layouts, and a predicted error at a few ranks of each.

A family's error at a rank is the weighted output error that a quick fit leaves; ranks in between are interpolated
(plan.py). It is built once for a net, a recipe and its moments; every budget is then solved from it alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from ...core.errors import ModelError, RecipeError
from ...core.filesize import metadata
from ...core.linalg import fit_error
from ...core.specs import Choice, Database, Family, Layer, MemberMacs, ModelRef, Progress, Route, Shape, product
from ...inputs.recipe import Assignment, Recipe
from ...network.chain import is_plain
from ...network.stored import stored_specs
from ...routing import routing_of
from ...schemes import SCHEMES, make, scheme_of
from ..analyze.groups import group_layers
from ..analyze.moments import Moments
from ..analyze.targets import shapes_of, targets
from .knapsack import predicted_error, stored_tensors
from .routes import gate_specs

# How far from a family's smallest to its largest size its error is measured, and the iterations that a quick fit gets.
# Each costs a fit, the largest most; beyond the last the error is extrapolated, so the smallest is always among them. A
# scheme may name its own, as `tried`.
POINTS = (0.0, 0.07, 0.15, 0.28, 0.48, 0.75)
QUICK = 20

Clusters = Callable[[Sequence[Layer]], Sequence[int]]


def form_families(
    layers: Sequence[Layer], assignments: Sequence[Assignment], clusters: Clusters | None = None
) -> tuple[tuple[Layer, ...], tuple[Family, ...]]:
    """Families without their size: layers of one scheme, with equal options and kernels that can share.

    `clusters` divides such a group further, by similarity. A rule's own family stays together; raises RecipeError KD203
    when its kernels cannot share, and ModelError KD306 when no layer is left to convert. Returns with the families the
    layers, a reason on those in none: KD109, KD110 where no size of a family would be smaller than its dense kernels.
    """
    by_name = {assignment.layer: assignment for assignment in assignments}
    active = [layer for layer in layers if by_name[layer.name].reason is None]
    groups = group_layers(active, lambda layer: _key(layer, by_name[layer.name]), at_least=1)
    families: list[Family] = []
    for members in groups.values():
        divided: Mapping[int, Sequence[Layer]] = {0: members}
        together = by_name[members[0].name].family
        if together is not None:
            _require_sharing(members, by_name, together)
        elif clusters is not None and len(members) > 1 and SCHEMES[_scheme(by_name[members[0].name])].shares:
            labels = clusters(members)
            divided = {label: [m for m, own in zip(members, labels, strict=True) if own == label] for label in labels}
        families += [_family(part, by_name[part[0].name]) for part in divided.values()]
    hopeless = {name: reason for family in families if (reason := _hopeless(family, layers)) for name in family.members}
    families = [family for family in families if family.members[0] not in hopeless]
    if not families and all(assignment.reason != "KD115" for assignment in assignments):
        raise ModelError("KD306", "no layer of this model can be converted by this recipe; `kdna analyze` says why")
    order = {layer.name: place for place, layer in enumerate(layers)}
    said = tuple(replace(layer, reason=hopeless.get(layer.name, layer.reason)) for layer in layers)
    return said, tuple(sorted(families, key=lambda family: order[family.members[0]]))


def build_database(
    model: nn.Module,
    ref: ModelRef,
    layers: Sequence[Layer],
    families: Sequence[Family],
    moments: Moments,
    recipe: Recipe,
    *,
    fingerprint: str = "",
    macs: int,
    divisible: Collection[int] = (),
    routes: Sequence[Route] = (),
    measure: bool = True,
    progress: Progress | None = None,
) -> Database:
    """Every family's choices. With `measure`, errors are predicted by quick fits of those that leave a choice.

    Those of `families` whose place is in `divisible` are taken apart where their layers predict less error alone. The
    `routes` are the same at every budget.
    """

    routed = {name for route in routes for name in route.members}

    def measured(family: Family) -> Choice:
        choice = _choice(model, family, layers, recipe, routed)
        if not measure or choice.fixed is not None:
            return choice
        return replace(choice, points=_points(model, choice, layers, moments, recipe.seed))

    choices: list[Choice] = []
    for done, family in enumerate(families):
        if progress is not None:
            progress(f"predict: {family.members[0]} ({len(family.members)} layers)", done, len(families))
        whole = measured(family)
        apart = [replace(family, members=(name,)) for name in family.members if done in divisible]
        alone = [] if any(_hopeless(one, layers) for one in apart) else [measured(one) for one in apart]
        choices += alone if alone and sum(map(_at_half, alone)) < _at_half(whole) else [whole]
    if progress is not None:
        progress("predict", len(families), len(families))
    order = {layer.name: place for place, layer in enumerate(layers)}
    gates, gate_params = gate_specs(model, routes)
    return Database(
        fingerprint=fingerprint,
        model=ref,
        layers=tuple(layers),
        tensors=stored_specs(model),
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        metadata=metadata(ref, recipe.text),
        choices=tuple(sorted(choices, key=lambda choice: order[choice.family.members[0]])),
        routes=tuple(routes),
        gates=gates,
        gate_params=gate_params,
        gate_macs=sum(routing_of(route).macs(route.layers) for route in routes),
        seed=recipe.seed,
    )


def _at_half(choice: Choice) -> float:
    """The error predicted at about half of the family's dense parameters."""
    return predicted_error(choice, choice.limit // 2)


def _scheme(assignment: Assignment) -> str:
    return assignment.scheme or ""  # never empty where there is no reason


def _key(layer: Layer, assignment: Assignment) -> Hashable:
    if assignment.family is not None:
        return assignment.family
    scheme = make(_scheme(assignment), assignment.options)
    shape = scheme.group(layer.shape) if scheme.shares else layer.name
    said = repr(sorted(assignment.options.items()))
    return scheme.name, shape, layer.groups if layer.groups > 1 else 1, said


def _require_sharing(members: Sequence[Layer], by_name: Mapping[str, Assignment], rule: str) -> None:
    first = by_name[members[0].name]
    scheme = make(_scheme(first), first.options)
    odd = [layer for layer in members if scheme.group(layer.shape) != scheme.group(members[0].shape)]
    if odd and scheme.shares:
        pair = f"{members[0].name} {list(members[0].shape)} and {odd[0].name} {list(odd[0].shape)}"
        raise RecipeError("KD203", f"{rule}.family: {scheme.name} cannot share between {pair}; leave `family` out")


def _hopeless(family: Family, layers: Sequence[Layer]) -> str | None:
    """Why no size of a family can be smaller than its dense kernels, or None where one can."""
    scheme, shapes = scheme_of(family), shapes_of(family, layers)
    least = replace(family, options={**family.options, scheme.size: scheme.smallest})
    stored = sum(product(spec.shape) for spec in stored_tensors(least, scheme.layout(shapes), "F32"))
    if stored < sum(map(product, shapes)):
        return None
    return "KD109" if scheme.shares and len(shapes) == 1 else "KD110"


def _family(members: Sequence[Layer], assignment: Assignment) -> Family:
    return Family(
        scheme=_scheme(assignment),
        members=tuple(layer.name for layer in members),
        options=dict(assignment.options),
    )


def _place(recipe: Recipe, size: str, value: int) -> str:
    """Where this size was asked for: the recipe's line and key, or else a plan that was edited by hand."""
    rules = [("rules", index, "options") for index, rule in enumerate(recipe.rules) if rule.options.get(size) == value]
    own = [("options",)] if recipe.options.get(size) == value else []
    return next((recipe.where(*path, size) for path in (*rules, *own)), f"the plan: options.{size}")


def _choice(
    model: nn.Module, family: Family, layers: Sequence[Layer], recipe: Recipe, routed: Collection[str]
) -> Choice:
    scheme, shapes = scheme_of(family), shapes_of(family, layers)
    members = [layer for name in family.members for layer in layers if layer.name == name]
    fixed = family.options.get(scheme.size)
    limit = scheme.limit(shapes)
    if fixed is not None and not scheme.smallest <= fixed <= max(limit, scheme.smallest):
        raise RecipeError(
            "KD207",
            f"{_place(recipe, scheme.size, fixed)}: must be in {scheme.smallest}..{limit} for the family of "
            f"{family.members[0]}, got {fixed}; above, it would store more than its dense kernels",
        )
    options = {key: value for key, value in family.options.items() if key != scheme.size}
    dtype = next(spec.dtype for spec in stored_specs(model) if spec.name == f"{family.members[0]}.weight")
    return Choice(
        family=replace(family, options=options),
        size=scheme.size,
        smallest=scheme.smallest,
        limit=max(limit, scheme.smallest),
        layout=scheme.layout(shapes),
        macs=tuple(
            MemberMacs(layer.macs) if layer.name in routed else _macs(model, family, scheme.size, layer)
            for layer in members
        ),
        dtype=dtype,
        fixed=fixed,
    )


def _macs(model: nn.Module, family: Family, size: str, layer: Layer) -> MemberMacs:
    """Multiply-adds as derive.factor runs the layer: factored where that costs less, else as before."""
    each, squared = _polynomial(family, size, layer.shape, layer.in_positions, layer.out_positions)
    if not each or not is_plain(type(model.get_submodule(layer.name)), layer.groups):
        return MemberMacs(layer.macs)
    a, b = _polynomial(family, size, layer.shape, product(layer.stride), 1)
    sizes = range(1, product(layer.shape) + 1)
    below = bisect_left(sizes, product(layer.shape), key=lambda r: (a + b * r) * r)
    return MemberMacs(layer.macs, each, squared, below)


def _polynomial(family: Family, size: str, shape: Shape, ins: int, outs: int) -> tuple[int, int]:
    """What a scheme's multiply-adds grow by with its size, and with its square; zeros where it has no factored form."""
    one, two = (scheme_of(family, **{size: number}).macs(shape, ins, outs) for number in (1, 2))
    squared = (two - 2 * one) // 2
    return (0, 0) if one == two else (one - squared, squared)


def _points(model: nn.Module, choice: Choice, layers: Sequence[Layer], moments: Moments, seed: int) -> dict[int, float]:
    """The weighted output error of quick fits at a few sizes; a larger one can do what a smaller can, so never more."""
    aims = targets(model, choice.family, moments)
    span = choice.limit - choice.smallest
    points: dict[int, float] = {}
    shares = getattr(scheme_of(choice.family), "tried", POINTS)
    for size in sorted({choice.smallest + round(share * span) for share in shares}):
        scheme = scheme_of(choice.family, **{choice.size: size})
        scheme = scheme.variants()[-1] if hasattr(scheme, "variants") else scheme
        shared, adapters = scheme.share(aims, seed=seed, sweeps=QUICK)
        error = sum(
            aim.weight * fit_error(scheme.expand(shared, adapter, aim.shape).flatten(1), aim)
            for aim, adapter in zip(aims, adapters, strict=True)
        )
        points[size] = min(max(error, 0.0), *points.values(), float("inf"))
    return points
