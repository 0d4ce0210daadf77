"""The laws that every scheme obeys, over kernels of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from itertools import product as pairs
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.targets import aims, draw, error_of, shared_by, weighted_error
from torch import Tensor

from kdna_convert.core.errors import PlanError, RecipeError
from kdna_convert.core.linalg import times
from kdna_convert.core.specs import Shape, SymbolicShape, product
from kdna_convert.schemes import SCHEMES, CuttableScheme, Tensors, concrete, make

FAMILIES: dict[str, list[Shape]] = {
    "3x3": [(6, 4, 3, 3), (6, 4, 3, 3), (6, 4, 3, 3)],
    "1x1": [(6, 5, 1, 1), (6, 5, 1, 1)],
    "1d": [(5, 4, 3), (5, 4, 3)],
    "linear": [(6, 5), (6, 5)],
    "3d": [(4, 2, 2, 3, 2), (4, 2, 2, 3, 2)],
    "depthwise": [(6, 1, 3, 3), (6, 1, 3, 3)],
    "1x3 beside 3x1": [(6, 4, 1, 3), (5, 4, 3, 1)],
    "alone": [(8, 4, 3, 3)],
    "only out agrees": [(6, 4, 3, 3), (6, 5, 1, 1), (6, 2, 3, 3)],
    "only taps differ": [(6, 4, 3, 3), (6, 4, 1, 1)],
    "only cells agree": [(6, 4, 3, 3), (5, 8, 3, 3)],
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cp": [{"rank": 1}, {"rank": 4}],
    "separable": [{"rank": 1}, {"rank": 4}],
    "basis": [{"rank": 1}, {"rank": 4}],
    "tucker": [{"rank": 1}, {"rank": 4}],
    "output": [{"rank": 1}, {"rank": 4}],
    "atoms": [{"rank": 1}, {"rank": 2}],
    "warehouse": [{"rank": 1, "cell": 4}, {"rank": 2, "cell": 5}],
    "codebook": [
        {"rank": 1, "cell": 4},
        {"rank": 3},
        {"rank": 3, "gain": "filter"},
        {"rank": 3, "gain": "filter", "codes": 2},
    ],
    "lowrank": [{"rank": 1}, {"rank": 3}],
    "kerneldna": [
        *({"start": start} for start in ("tie", "lstsq", "norm")),
        {"start": "lstsq", "channel": True, "residual_rank": 1},
        {"start": "lstsq", "parent": "fitted", "channel": True},
        {"start": "tie", "residual_rank": 2},
    ],
}
FIXED = {"kerneldna", "atoms", "codebook"}  # no factored form
REPEATED = {"separable", "warehouse"}  # whose chain holds some of what is stored several times over
SOLVED = {"output": "V", "atoms": "D"}  # what `fit` solves for, where it is not U


def can_share(scheme: Any, shapes: list[Shape]) -> bool:
    return len({scheme.group(shape) for shape in shapes}) == 1


CASES = [
    pytest.param(make(name, options), shapes, id=f"{name}-{'-'.join(map(str, options.values()))}-{kind}")
    for name in SCHEMES
    for options, (kind, shapes) in pairs(OPTIONS[name], FAMILIES.items())
    if can_share(make(name, options), shapes)
]
every_case = pytest.mark.parametrize(("scheme", "shapes"), CASES)


def fits_all(scheme: Any) -> bool:
    """Whether `fit` leaves nothing better for the adapter as a whole: a tie or a norm start does not try."""
    return scheme.name != "kerneldna" or (scheme.start in ("lstsq", "best") and not scheme.residual_rank)


@cache
def _fitted(scheme: Any, shapes: tuple[Shape, ...]) -> tuple[Tensors, list[Tensors]]:
    return shared_by(scheme, aims(list(shapes)))


def fitted(scheme: Any, shapes: list[Shape]) -> tuple[Tensors, list[Tensors]]:
    """The result of `share` for aims(shapes), computed once for all laws."""
    return _fitted(scheme, tuple(shapes))


def stored(part: dict[str, SymbolicShape], scheme: Any) -> dict[str, Shape]:
    shapes = {letter: concrete(shape, scheme) for letter, shape in part.items()}
    return {letter: shape for letter, shape in shapes.items() if product(shape)}


def stored_numbers(scheme: Any, shapes: list[Shape]) -> int:
    layout = scheme.layout(shapes)
    parts = [stored(part, scheme) for part in (layout.shared, *layout.adapters)]
    return sum(product(shape) for part in parts for shape in part.values())


@every_case
def test_expand_has_the_kernels_shape_and_the_tensors_dtype(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    for shape, adapter in zip(shapes, adapters, strict=True):
        assert scheme.expand(shared, adapter, shape).shape == shape
        assert scheme.expand(shared, adapter, shape).dtype == torch.float64
        halves = [{letter: tensor.half() for letter, tensor in part.items()} for part in (shared, adapter)]
        assert scheme.expand(*halves, shape).dtype == torch.float16


@pytest.mark.parametrize(("scheme", "shapes"), [case for case in CASES if fits_all(case.values[0])])
def test_fit_recovers_a_kernel_that_is_in_the_family(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    inside = [scheme.expand(shared, adapter, shape) for adapter, shape in zip(adapters, shapes, strict=True)]
    for target, adapter, kernel in zip(aims(shapes, 7, inside), adapters, inside, strict=True):
        again = scheme.expand(shared, scheme.fit(shared, adapter, target), target.shape)
        torch.testing.assert_close(again, kernel, rtol=1e-4, atol=1e-4)


def solved_for(scheme: Any) -> str:
    """The letters of the tensors that `fit` solves for: none for a tie and a norm start without a residual."""
    if scheme.name != "kerneldna":
        return SOLVED.get(scheme.name, "U")
    return "fsc" if fits_all(scheme) else "AB" if scheme.residual_rank else ""


@pytest.mark.parametrize(("scheme", "shapes"), [case for case in CASES if solved_for(case.values[0])])
def test_the_weighted_error_has_no_slope_at_what_fit_solves_for(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    for target, adapter in zip(aims(shapes), adapters, strict=True):
        solved = scheme.fit(shared, adapter, target)
        leaves = {letter: solved[letter].clone().requires_grad_() for letter in solved_for(scheme) if letter in solved}
        gap_on = target.kernel_on - scheme.expand(shared, {**solved, **leaves}, target.shape).flatten(1)
        error = (times(gap_on, target.moment) * gap_on).sum()
        slopes = dict(zip(leaves, torch.autograd.grad(error, list(leaves.values())), strict=True))
        assert slopes
        for letter, slope in slopes.items():
            assert float(slope.norm() * leaves[letter].detach().norm()) <= 1e-3 * target.energy, letter


@every_case
def test_the_layout_is_what_is_stored_at_every_size(scheme: Any, shapes: list[Shape]) -> None:
    targets = aims(shapes)
    most = max(scheme.limit(shapes), scheme.smallest)
    for size in sorted({scheme.smallest, scheme.smallest + 1, most} & set(range(scheme.smallest, most + 1))):
        sized = make(scheme.name, {**vars(scheme), scheme.size: size})
        shared, adapters = sized.share(targets, seed=0, sweeps=2)
        layout = sized.layout(shapes)
        for part, tensors in zip((layout.shared, *layout.adapters), (shared, *adapters), strict=True):
            assert {letter: tuple(t.shape) for letter, t in tensors.items() if t.numel()} == stored(part, sized)


@every_case
def test_gradients_reach_every_tensor(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    parts = [
        {letter: tensor.clone().requires_grad_(tensor.is_floating_point()) for letter, tensor in part.items()}
        for part in (shared, *adapters)
    ]
    for adapter, shape in zip(parts[1:], shapes, strict=True):
        (scheme.expand(parts[0], adapter, shape) * draw(5, *shape)).sum().backward()
    for part in parts:
        slopes = {letter: tensor.grad for letter, tensor in part.items() if tensor.is_floating_point()}
        assert all(slope is not None and slope.isfinite().all() for slope in slopes.values())
        # The residual A B of a kernel that the parent equals is zero, and so is the slope of one of the two.
        zero = {letter for letter in "AB" if letter in part and not part[letter].any()}
        assert {letter for letter, slope in slopes.items() if not slope.any()} <= ({"A", "B"} - zero if zero else set())


CONV: dict[int, Callable[..., Tensor]] = {0: F.linear, 1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
HOW: list[dict[str, int]] = [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}]


@every_case
def test_the_factors_run_one_after_another_are_the_kernel(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    for adapter, shape in zip(adapters, shapes, strict=True):
        chain = scheme.factors(shared, adapter, shape)
        if scheme.name in FIXED:
            assert chain is None
            continue
        held, kept = (sum(t.numel() for t in part) for part in (chain, {**shared, **adapter}.values()))
        assert held >= kept if scheme.name in REPEATED else held == kept
        kernel = scheme.expand(shared, adapter, shape)
        for how in HOW if len(shape) > 2 else [{}]:
            x = draw(9, 2, shape[1], *[7] * (len(shape) - 2))
            torch.testing.assert_close(run(x, chain, how), run(x, [kernel], how))


def run(x: Tensor, chain: list[Tensor], how: dict[str, int]) -> Tensor:
    """The kernels as convolutions, one after another; the one with the taps strides, pads and dilates."""
    spatial = max(range(len(chain)), key=lambda place: product(tuple(chain[place].shape[2:])))
    for place, kernel in enumerate(chain):
        settings_here = how if place == spatial else {}
        conv = CONV[kernel.ndim - 2]
        x = (
            conv(x, kernel)
            if conv is F.linear
            else conv(x, kernel, groups=x.shape[1] // kernel.shape[1], **settings_here)
        )
    return x


@every_case
def test_the_limit_is_the_last_size_that_stores_no_more_than_dense(scheme: Any, shapes: list[Shape]) -> None:
    dense_size, limit = sum(map(product, shapes)), scheme.limit(shapes)
    sizes = [
        stored_numbers(make(scheme.name, {**vars(scheme), scheme.size: size}), shapes) for size in (limit, limit + 1)
    ]
    assert sizes[0] <= dense_size or limit == scheme.smallest
    assert sizes[1] > dense_size


@every_case
def test_a_seed_decides_everything(scheme: Any, shapes: list[Shape]) -> None:
    one, two = fitted(scheme, shapes), shared_by(scheme, aims(shapes))
    for left, right in zip((one[0], *one[1]), (two[0], *two[1]), strict=True):
        assert all(torch.equal(left[letter], right[letter]) for letter in left)


def sizes_of(scheme: Any, shapes: list[Shape]) -> range:
    return range(scheme.smallest, max(scheme.limit(shapes), scheme.smallest) + 1)


LADDERS = [
    pytest.param(scheme, FAMILIES[kind], id=f"{scheme.name}-{kind}")
    for scheme in (make(name, {"start": "lstsq"} if name == "kerneldna" else {}) for name in SCHEMES)
    for kind in ("3x3", "1x1", "linear", "alone")
    if len(sizes_of(scheme, FAMILIES[kind])) > 1
]


def test_every_scheme_has_a_family_of_several_sizes() -> None:
    assert {case.values[0].name for case in LADDERS} == set(SCHEMES)


@pytest.mark.parametrize(("scheme", "shapes"), LADDERS)
def test_a_larger_size_never_fits_worse(scheme: Any, shapes: list[Shape]) -> None:
    sizes = sizes_of(scheme, shapes)
    steps = [replace(scheme, **{scheme.size: size}) for size in sizes[:: max(1, len(sizes) // 8)]]
    errors = [error_of(step, aims(shapes), sweeps=40) for step in steps]
    assert errors[-1] < errors[0]
    assert all(larger <= smaller + 0.02 for smaller, larger in pairwise(errors)), errors


@every_case
def test_reassigning_changes_indices_only_and_is_a_fit_without_them(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    for target, adapter in zip(aims(shapes, 7), adapters, strict=True):
        fit, anew = scheme.fit(shared, adapter, target), scheme.reassign(shared, adapter, target)
        assert {k: (t.shape, t.dtype) for k, t in anew.items()} == {k: (t.shape, t.dtype) for k, t in fit.items()}
        indices = scheme.layout(shapes).indices
        assert all(torch.equal(fit[letter], adapter[letter]) for letter in indices)
        assert indices or all(torch.equal(fit[letter], anew[letter]) for letter in fit)


@pytest.mark.parametrize(("scheme", "shapes"), [case for case in CASES if isinstance(case.values[0], CuttableScheme)])
def test_a_cuttable_schemes_kernels_are_mixings_of_its_rows(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = fitted(scheme, shapes)
    for adapter, shape in zip(adapters, shapes, strict=True):
        rows_rn = scheme.rows(shared, adapter, shape)
        assert rows_rn.shape == (scheme.rank, product(shape[1:]))
        torch.testing.assert_close(adapter["U"] @ rows_rn, scheme.expand(shared, adapter, shape).flatten(1))


@pytest.mark.parametrize(("scheme", "shapes"), [case for case in CASES if isinstance(case.values[0], CuttableScheme)])
def test_a_refined_fit_is_no_worse_than_its_start_and_needs_no_mixing(scheme: Any, shapes: list[Shape]) -> None:
    shared, adapters = scheme.share(aims(shapes), seed=3, sweeps=2)
    bare = [{letter: tensor for letter, tensor in adapter.items() if letter != "U"} for adapter in adapters]
    refined = scheme.refine(shared, bare, aims(shapes), 10)
    before, after = (weighted_error(scheme, aims(shapes), *tensors) for tensors in ((shared, adapters), refined))
    assert after <= before + 1e-9


@pytest.mark.parametrize("name", SCHEMES)
def test_the_variants_are_options_that_leave_nothing_to_choose(name: str) -> None:
    variants = make(name, {}).variants()
    assert variants
    for changed in variants:
        assert make(name, changed).variants() == ({},)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_probes_rise_from_the_smallest_size(name: str) -> None:
    probes = SCHEMES[name].probes
    assert probes[0] == 0
    assert all(low < high <= 1 for low, high in pairwise(probes))


@pytest.mark.parametrize("name", SCHEMES)
def test_kernels_of_zeros_are_fitted_without_a_nan(name: str) -> None:
    shapes = [(6, 4, 3, 3)] * 2
    options = {"kerneldna": {"start": "norm", "channel": True, "residual_rank": 1}}.get(name, {"rank": 2})
    for zeros in ([0, 1], [1]):
        kernels = [
            torch.zeros(shape, dtype=torch.float64) if i in zeros else draw(i, *shape) for i, shape in enumerate(shapes)
        ]
        targets = aims(shapes, 0, kernels)
        shared, adapters = make(name, options).share(targets, seed=0, sweeps=5)
        assert all(tensor.isfinite().all() for part in (shared, *adapters) for tensor in part.values())
        for place in zeros:
            assert not make(name, options).expand(shared, adapters[place], shapes[place]).abs().max() > 1e-9


@pytest.mark.parametrize(
    ("options", "code"), [({"ranks": 3}, "KD202: options: cp has no option 'ranks'"), ({"rank": "many"}, "KD203")]
)
def test_a_wrong_option_is_named(options: dict[str, Any], code: str) -> None:
    with pytest.raises(RecipeError, match=code):
        make("cp", options)


def test_an_unknown_scheme_is_a_plan_error() -> None:
    with pytest.raises(PlanError, match=r"KD503: .*'tensor-train'"):
        make("tensor-train", {})
