"""The contract that every scheme signs, over kernels of every kind."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdna_convert.core.errors import PlanError, RecipeError
from kdna_convert.core.linalg import Kronecker, Target, dense, fit_error, kronecker, plain_target, times, untimes
from kdna_convert.core.specs import Shape, SymbolicShape, product
from kdna_convert.schemes import SCHEMES, Tensors, cp, make
from kdna_convert.schemes.projection import explain
from kdna_convert.schemes.quantising import codes_of, feed, lines, nearest_sum, points

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
KERNELS: list[Shape] = [(6, 4, 3, 3)] * 3
CUT: list[Shape] = [(6, 4, 3, 3), (6, 8, 3, 3)]
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


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def aims(shapes: list[Shape], seed: int = 0, kernels: list[Tensor] | None = None) -> list[Target]:
    """Targets of random kernels that resemble each other, under random moments, of unequal weight."""
    found = []
    for place, shape in enumerate(shapes):
        own = draw(seed + place, *shape) + draw(seed + 99, product(shape)).view(shape)
        root = draw(seed + place + 50, product(shape[1:]), 2 * product(shape[1:]))
        moment = root @ root.T / root.shape[1]
        found.append(plain_target(own if kernels is None else kernels[place], moment, 1.0 + place))
    return found


def shared_by(scheme: Any, targets: list[Target]) -> tuple[Tensors, list[Tensors]]:
    return scheme.share(targets, seed=3, sweeps=10)


@cache
def _fitted(scheme: Any, shapes: tuple[Shape, ...]) -> tuple[Tensors, list[Tensors]]:
    return shared_by(scheme, aims(list(shapes)))


def fitted(scheme: Any, shapes: list[Shape]) -> tuple[Tensors, list[Tensors]]:
    """What `share` makes of aims(shapes), worked out once for all laws."""
    return _fitted(scheme, tuple(shapes))


def error_of(scheme: Any, targets: list[Target], sweeps: int = 15, seed: int = 3) -> float:
    """The weighted error that `share` leaves, relative to the weighted energy."""
    shared, adapters = scheme.share(targets, seed=seed, sweeps=sweeps)
    left = [fit_error(scheme.expand(shared, a, t.shape).flatten(1), t) for a, t in zip(adapters, targets, strict=True)]
    energy = sum(t.weight * t.energy for t in targets)
    return sum(t.weight * error for t, error in zip(targets, left, strict=True)) / energy


def stored(part: dict[str, SymbolicShape], scheme: Any) -> dict[str, Shape]:
    shapes = {k: tuple(getattr(scheme, n) if isinstance(n, str) else n for n in shape) for k, shape in part.items()}
    return {letter: shape for letter, shape in shapes.items() if product(shape)}


def size_of(scheme: Any, shapes: list[Shape]) -> int:
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
        found = scheme.fit(shared, adapter, target)
        leaves = {letter: found[letter].clone().requires_grad_() for letter in solved_for(scheme) if letter in found}
        gap_on = target.kernel_on - scheme.expand(shared, {**found, **leaves}, target.shape).flatten(1)
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
        for part, found in zip((layout.shared, *layout.adapters), (shared, *adapters), strict=True):
            assert {letter: tuple(t.shape) for letter, t in found.items() if t.numel()} == stored(part, sized)


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
    sizes = [size_of(make(scheme.name, {**vars(scheme), scheme.size: size}), shapes) for size in (limit, limit + 1)]
    assert sizes[0] <= dense_size or limit == scheme.smallest
    assert sizes[1] > dense_size


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["cp", "basis", "lowrank"]),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(1, 12),
    st.sampled_from([(), (1, 1), (3,), (3, 3)]),
)
def test_the_limit_is_never_above_what_the_kernels_can_carry(
    name: str, outs: list[int], channels: int, taps: Shape
) -> None:
    shapes = [(out, channels, *taps) for out in outs]
    limit = make(name, {}).limit(shapes)
    patch = channels * product(taps)
    carried = {"cp": patch, "basis": min(sum(outs), patch), "lowrank": min(*outs, patch)}
    assert 1 <= limit <= carried[name]


@pytest.mark.parametrize(("name", "rank"), [("basis", 9), ("basis", 13), ("lowrank", 7)])
def test_a_rank_above_what_the_kernels_carry_is_refused_not_cut_short(name: str, rank: int) -> None:
    with pytest.raises(RecipeError, match="KD207"):
        make(name, {"rank": rank}).share(aims([(6, 8), (6, 8)]), seed=0, sweeps=2)


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


@pytest.mark.parametrize("name", ["cp", "basis"])
def test_a_family_of_equal_kernels_costs_one_of_them_no_error(name: str) -> None:
    kernel = draw(0, 6, 4, 1, 1)
    targets = aims([(6, 4, 1, 1)] * 3, 0, [kernel] * 3)
    assert error_of(make(name, {"rank": 4}), targets, 60) < 1e-8


def test_one_layer_alone_by_lowrank_is_the_best_of_its_rank() -> None:
    """Eckart and Young, in the metric of the outputs."""
    (target,) = aims([(6, 4, 3, 3)])
    values, vectors = torch.linalg.eigh(dense(target.moment))
    half = vectors * values.sqrt()
    singular = torch.linalg.svdvals(target.kernel_on @ half)
    for rank in (1, 3, 5):
        best = float(singular[rank:].square().sum() / singular.square().sum())
        assert error_of(make("lowrank", {"rank": rank}), [target]) == pytest.approx(best, rel=1e-5)


def test_one_layer_alone_by_output_is_the_best_of_its_rank_as_well() -> None:
    targets = aims([(6, 4, 3, 3)])
    for rank in (1, 3, 5):
        both = [error_of(make(name, {"rank": rank}), targets) for name in ("output", "lowrank")]
        assert both[0] == pytest.approx(both[1], rel=1e-5)


def test_no_other_output_directions_leave_less_than_those_of_the_closed_form() -> None:
    scheme, targets = make("output", {"rank": 3}), aims([(6, 4, 3, 3), (6, 5, 1, 1), (6, 2, 3, 3)])

    def left(outputs_oq: Tensor) -> float:
        found = [scheme.fit({"U": outputs_oq}, {}, t)["V"] for t in targets]
        return sum(t.weight * fit_error(outputs_oq @ v, t) for t, v in zip(targets, found, strict=True))

    best = shared_by(scheme, targets)[0]["U"]
    assert all(left(best) <= left(best + size * draw(seed, 6, 3)) for seed in range(4) for size in (1e-3, 1e-2, 0.3))


def test_a_target_of_another_kernel_is_what_output_fits() -> None:
    """A refit's target: its cross moment is not the kernel's own."""
    (target,), (other,) = aims([(6, 4, 3, 3)]), aims([(6, 4, 3, 3)], seed=5)
    moved = replace(target, cross_on=times(other.kernel_on, target.moment))
    wanted = make("output", {"rank": 6}).fit({"U": torch.eye(6).double()}, {}, moved)["V"]
    torch.testing.assert_close(wanted, other.kernel_on, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5, 1, 1)])
def test_undoing_a_moment_is_the_inverse_of_applying_it(shape: Shape) -> None:
    (target,) = aims([shape])
    for moment in (target.moment, kronecker(dense(target.moment), shape[1])):
        there_and_back = untimes(times(target.kernel_on, moment), moment)
        torch.testing.assert_close(there_and_back, target.kernel_on, rtol=1e-6, atol=1e-6)


def test_kernels_of_the_same_coefficients_cost_atoms_no_error() -> None:
    mixing = draw(0, 6, 4, 3)
    kernels = [
        (mixing @ draw(seed, 3, taps)).view(6, 4, *side) for seed, taps, side in ((1, 9, (3, 3)), (2, 1, (1, 1)))
    ]
    targets = aims([(6, 4, 3, 3), (6, 4, 1, 1)], 0, kernels)
    assert error_of(make("atoms", {"rank": 3}), targets, sweeps=1) < 1e-9


@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 4)])
def test_atoms_descend_where_the_start_is_not_the_best(form: Callable[[Any], Any]) -> None:
    targets = [replace(t, moment=form(t.moment), cross_on=times(t.kernel_on, form(t.moment))) for t in aims(KERNELS)]
    few, many = (error_of(make("atoms", {"rank": 6}), targets, sweeps=sweeps) for sweeps in (1, 60))
    assert many < few


def test_a_warehouse_of_whole_filters_is_the_shared_basis() -> None:
    targets = aims(KERNELS)
    both = [
        error_of(make(*scheme), targets, 60)
        for scheme in (("warehouse", {"rank": 5, "cell": 4}), ("basis", {"rank": 5}))
    ]
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def test_cells_that_are_scaled_copies_of_few_cost_a_codebook_no_error() -> None:
    bank = draw(0, 3, 9)
    which = [(draw(seed, shape[0], shape[1]).abs() * 9).long() % 3 for seed, shape in enumerate(CUT)]
    kernels = [
        (draw(seed + 5, *shape[:2], 1) * bank[code]).view(shape)
        for seed, (shape, code) in enumerate(zip(CUT, which, strict=True))
    ]
    assert min(error_of(make("codebook", {"rank": 3}), aims(CUT, 0, kernels), seed=seed) for seed in range(4)) < 1e-9


def test_filters_made_of_few_cells_cost_a_codebook_with_a_gain_each_no_error() -> None:
    bank = draw(0, 3, 9)
    which = [(draw(seed, shape[0], shape[1]).abs() * 9).long() % 3 for seed, shape in enumerate(CUT)]
    kernels = [
        (draw(seed + 5, shape[0], 1, 1).abs().add(0.1) * bank[code]).view(shape)
        for seed, (shape, code) in enumerate(zip(CUT, which, strict=True))
    ]
    scheme = make("codebook", {"rank": 3, "gain": "filter"})
    assert min(error_of(scheme, aims(CUT, 0, kernels), 40, seed=seed) for seed in range(8)) < 1e-9


def test_two_codes_leave_less_of_kernels_of_noise_than_one_and_a_gain_for_each_cell() -> None:
    targets = aims([(32, 16, 3, 3)] * 3)
    numbers, errors = [], []
    for options in ({"rank": 80}, {"rank": 58, "gain": "filter", "codes": 2}):
        scheme = make("codebook", options)
        layout = scheme.layout([target.shape for target in targets])
        specs = [*layout.shared.values(), *(spec for adapter in layout.adapters for spec in adapter.values())]
        numbers.append(sum(product(tuple(options["rank"] if n == "rank" else n for n in spec)) for spec in specs))
        errors.append(error_of(scheme, targets, 60))
    assert numbers[1] <= numbers[0]
    assert errors[1] < 0.8 * errors[0]


def test_each_code_more_leaves_less_of_a_cell() -> None:
    cells, bank = draw(0, 200, 9), draw(1, 40, 9)
    sizes = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64).expand(200, 3)
    left = [float(nearest_sum(cells, bank, sizes[:, :codes], 0)[1].square().sum()) for codes in (1, 2, 3)]
    assert left[2] < left[1] < left[0]
    codes, rest = nearest_sum(cells, bank, sizes, 2)
    assert float(rest.square().sum()) < left[2]
    assert torch.allclose(rest, cells - (sizes[..., None] * bank[codes]).sum(1))


def test_several_codes_with_a_gain_for_each_cell_are_refused() -> None:
    with pytest.raises(RecipeError, match="codes") as error:
        make("codebook", {"codes": 2})
    assert error.value.code == "KD203"


@pytest.mark.parametrize("gain", ["cell", "filter"])
def test_codes_that_make_up_for_the_errors_before_them_leave_less_than_the_nearest(gain: str) -> None:
    shape, generator = (24, 8, 3, 3), torch.Generator().manual_seed(3)
    inputs = torch.rand(400, 8, generator=generator, dtype=torch.float64)
    channels = inputs.T @ inputs / 400  # as behind a ReLU: of one sign, so they have much to do with each other
    moment = torch.kron(channels, torch.eye(9, dtype=torch.float64))
    target = plain_target(draw(0, *shape), moment, 1.0)
    bank, gains = points([target], [8], 48, 1, 0, 8) if gain == "filter" else (lines([target], [8], 48, 0, 8), [None])
    scheme = make("codebook", {"rank": 48, "gain": gain})
    errors = []
    for seen in (target.moment, torch.eye(72, dtype=torch.float64)):
        codes = codes_of(bank, gains[0], target.kernel_on, feed(seen, 8))[..., 0]
        adapter = scheme.fit({"E": bank}, {"K": codes}, target)
        errors.append(fit_error(scheme.expand({"E": bank}, adapter, shape).flatten(1), target))
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize(("gain", "codes"), [("cell", 1), ("filter", 1), ("filter", 2)])
def test_codes_chosen_anew_for_another_kernel_leave_less_than_gains_alone(gain: str, codes: int) -> None:
    before, after = aims([(24, 8, 3, 3)] * 2)
    scheme = make("codebook", {"rank": 32, "gain": gain, "codes": codes})
    shared, (adapter,) = shared_by(scheme, [before])
    held, chosen = scheme.fit(shared, adapter, after), scheme.reassign(shared, adapter, after)
    left = [fit_error(scheme.expand(shared, own, after.shape).flatten(1), after) for own in (held, chosen)]
    assert left[1] < 0.7 * left[0]
    assert {key: (own.shape, own.dtype) for key, own in chosen.items()} == {
        key: (own.shape, own.dtype) for key, own in adapter.items()
    }


@pytest.mark.parametrize("gain", ["cell", "filter"])
@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 4)])
def test_the_gains_of_a_codebook_leave_its_error_no_slope(form: Callable[[Any], Any], gain: str) -> None:
    (target,) = aims([(6, 4, 3, 3)])
    target = replace(target, moment=form(target.moment), cross_on=times(target.kernel_on, form(target.moment)))
    for cell in (1, 2, 4):
        scheme = make("codebook", {"rank": 5, "cell": cell, "gain": gain})
        shared, (adapter,) = shared_by(scheme, [target])
        gains = adapter["U"].clone().requires_grad_()
        gap_on = target.kernel_on - scheme.expand(shared, {**adapter, "U": gains}, target.shape).flatten(1)
        (slope,) = torch.autograd.grad((times(gap_on, target.moment) * gap_on).sum(), gains)
        assert float(slope.abs().max()) < 1e-6 * target.energy


def test_blocks_cut_from_one_bank_cost_a_warehouse_no_error() -> None:
    bank = draw(0, 3, 2 * 9)
    kernels = [(draw(seed, 6, shape[1] // 2, 3) @ bank).view(shape) for seed, shape in enumerate(CUT)]
    assert error_of(make("warehouse", {"rank": 3, "cell": 2}), aims(CUT, 0, kernels)) < 1e-9


def test_tucker_of_full_rank_is_exact() -> None:
    assert error_of(make("tucker", {"rank": 6}), aims(KERNELS), sweeps=1) < 1e-9


def test_kernels_that_read_few_channels_and_write_few_cost_tucker_no_error() -> None:
    bank = draw(0, 2, 4)
    kernels = [torch.einsum("op,pqs,qi->ois", draw(s, 6, 2), draw(s + 9, 2, 2, 9), bank) for s in range(3)]
    targets = aims(KERNELS, 0, [kernel.view(6, 4, 3, 3) for kernel in kernels])
    assert error_of(make("tucker", {"rank": 2}), targets, sweeps=30) < 1e-6


@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 4)])
def test_a_searchs_slope_is_that_of_the_energy_its_rows_explain(form: Callable[[Any], Any]) -> None:
    (target,) = aims([(6, 4, 3, 3)])
    moment = form(target.moment)
    target = replace(target, moment=moment, cross_on=times(target.kernel_on, moment))
    rows = draw(1, 3, 36).requires_grad_()
    cross_or = target.cross_on @ rows.T
    value = (torch.linalg.solve(rows @ dense(moment) @ rows.T, cross_or.T).T * cross_or).sum()
    (slope,) = torch.autograd.grad(value, rows)
    found, found_slope = explain(rows.detach(), target)
    assert found == pytest.approx(float(value.detach()), rel=1e-6)
    torch.testing.assert_close(found_slope, slope, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("name", ["cp", "basis"])
@pytest.mark.parametrize("weights", [(1.0, 1e-6), (1e-6, 1.0)])
def test_the_layer_that_the_loss_feels_is_fitted_better(name: str, weights: tuple[float, float]) -> None:
    shapes: list[Shape] = [(8, 4, 3, 3)] * 2
    targets = [plain_target(draw(i, *s), torch.eye(36).double(), weights[i]) for i, s in enumerate(shapes)]
    scheme = make(name, {"rank": 6})
    shared, adapters = shared_by(scheme, targets)
    errors = [
        fit_error(scheme.expand(shared, a, t.shape).flatten(1), t) for a, t in zip(adapters, targets, strict=True)
    ]
    assert (errors[0] < errors[1]) == (weights[0] > weights[1])


@pytest.mark.parametrize("form", ["dense", "kronecker"])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5, 1, 1), (4, 2, 2, 3, 2)])
def test_the_gradient_of_cps_variable_projection_is_autograds(shape: Shape, form: str) -> None:
    (target,) = aims([shape])
    if form == "kronecker":
        moment = kronecker(dense(target.moment), shape[1])
        target = Target(shape, target.kernel_on, times(target.kernel_on, moment), moment, 1.0)
    bank, spatial = draw(1, 3, shape[1]), draw(2, 3, product(shape[2:]))
    if product(shape[2:]) == 1:
        spatial = torch.ones_like(spatial)

    def explained(bank_ri: Tensor, spatial_rs: Tensor) -> Tensor:
        rows_rn = (bank_ri[:, :, None] * spatial_rs[:, None, :]).flatten(1)
        cross_or = target.cross_on @ rows_rn.T
        return (torch.linalg.solve(rows_rn @ dense(target.moment) @ rows_rn.T, cross_or.T).T * cross_or).sum()

    leaves = [bank.clone().requires_grad_(), spatial.clone().requires_grad_()]
    value = explained(*leaves)
    value.backward()  # type: ignore[no-untyped-call]
    found, by_bank, by_spatial = cp._explained(bank, spatial, target)
    assert found == pytest.approx(float(value.detach()), rel=1e-6)
    torch.testing.assert_close(by_bank, leaves[0].grad, rtol=1e-5, atol=1e-5)
    if product(shape[2:]) > 1:
        torch.testing.assert_close(by_spatial, leaves[1].grad, rtol=1e-5, atol=1e-5)
    else:
        assert not by_spatial.any(), "a single tap has no kernel of its own to move"


def test_both_metric_forms_of_cp_agree_where_the_moment_is_a_kronecker_product() -> None:
    (target,) = aims([(6, 4, 3, 3)])
    kept = kronecker(dense(target.moment), 4)
    cross = times(target.kernel_on, kept)
    bank, spatial = draw(1, 3, 4), draw(2, 3, 9)
    two = [
        cp._explained(bank, spatial, Target(target.shape, target.kernel_on, cross, moment, 1.0))
        for moment in (kept, dense(kept))
    ]
    assert isinstance(kept, Kronecker)
    assert two[0][0] == pytest.approx(two[1][0])
    for left, right in zip(two[0][1:], two[1][1:], strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("channel", [False, True])
def test_kerneldnas_tie_is_the_parent_itself(channel: bool) -> None:
    scheme = make("kerneldna", {"start": "tie", "channel": channel})
    shared, adapters = shared_by(scheme, aims(KERNELS))
    for adapter in adapters:
        assert not any(tensor.any() for tensor in adapter.values())
        assert torch.equal(scheme.expand(shared, adapter, KERNELS[0]), shared["P"])


@pytest.mark.parametrize("channel", [False, True])
def test_kerneldnas_norm_start_gives_each_filter_its_output_energy(channel: bool) -> None:
    scheme, targets = make("kerneldna", {"start": "norm", "channel": channel}), aims(KERNELS)
    shared, adapters = shared_by(scheme, targets)
    for target, adapter in zip(targets, adapters, strict=True):
        child_on = scheme.expand(shared, adapter, target.shape).flatten(1)
        energy = (times(child_on, target.moment) * child_on).sum(1)
        wanted = (target.cross_on * target.kernel_on).sum(1)
        torch.testing.assert_close(energy, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("start", ["best", "tie", "lstsq", "norm"])
@pytest.mark.parametrize("residual_rank", [0, 2])
def test_kerneldnas_medoid_is_one_of_the_kernels_and_its_own_fit_exact(start: str, residual_rank: int) -> None:
    scheme, targets = make("kerneldna", {"start": start, "residual_rank": residual_rank}), aims(KERNELS)
    shared, adapters = shared_by(scheme, targets)
    gaps = [
        float((scheme.expand(shared, a, t.shape).flatten(1) - t.kernel_on).abs().max())
        for a, t in zip(adapters, targets, strict=True)
    ]
    (medoid,) = [place for place, target in enumerate(targets) if torch.equal(shared["P"].flatten(1), target.kernel_on)]
    assert gaps[medoid] < 1e-6


@pytest.mark.parametrize("start", ["tie", "lstsq", "norm"])
def test_kerneldnas_residual_of_full_rank_is_exact(start: str) -> None:
    scheme = make("kerneldna", {"start": start, "residual_rank": min(6, 4 * 9)})
    assert error_of(scheme, aims(KERNELS)) < 1e-12


def test_kerneldnas_least_squares_fit_is_no_worse_than_its_tie() -> None:
    errors = {start: error_of(make("kerneldna", {"start": start}), aims(KERNELS)) for start in ("tie", "lstsq")}
    assert errors["lstsq"] <= errors["tie"]


def test_kerneldna_tries_each_start_only_when_it_is_to_choose() -> None:
    assert make("kerneldna", {}).variants() == ({"start": "tie"}, {"start": "lstsq"}, {"start": "norm"})
    assert make("kerneldna", {"start": "norm"}).variants() == ({},)


def test_a_fitted_parent_serves_all_better_than_the_medoid() -> None:
    fitted, medoid = (
        error_of(make("kerneldna", {"start": "lstsq", "parent": p}), aims(KERNELS)) for p in ("fitted", "medoid")
    )
    assert fitted < medoid


@pytest.mark.parametrize(
    ("options", "code"), [({"ranks": 3}, "KD202: options: cp has no option 'ranks'"), ({"rank": "many"}, "KD203")]
)
def test_a_wrong_option_is_named(options: dict[str, Any], code: str) -> None:
    with pytest.raises(RecipeError, match=code):
        make("cp", options)


def test_an_unknown_scheme_is_a_plan_error() -> None:
    with pytest.raises(PlanError, match=r"KD503: .*'tensor-train'"):
        make("tensor-train", {})
