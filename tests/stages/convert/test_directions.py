"""The order of a family's directions: no loss at full size, the least loss at smaller sizes."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from kdna_convert.core.errors import NumericsError
from kdna_convert.core.linalg import Target, fit_error, plain_target
from kdna_convert.schemes import SCHEMES, CuttableScheme, Tensors, make
from kdna_convert.stages.convert.directions import errors, leading, order

RANK = 8
CUT = ["basis", "cp", "separable", "lowrank"]
Fitted = tuple[Any, Tensors, list[Tensors], list[Target]]


def family(name: str, taps: int = 3) -> Fitted:
    """Three layers of unlike inputs and weights, fitted at RANK, their directions then shuffled."""
    noise = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    patch = 9 * taps * taps
    targets = []
    for out, weight in ((7, 1.0), (10, 3.0), (9, 0.2)):
        inputs = draw(3 * patch, patch) * draw(patch).exp()
        targets.append(plain_target(draw(out, 9, taps, taps), inputs.T @ inputs / len(inputs), weight))
    scheme = make(name, {"rank": RANK if name != "lowrank" else 5})
    shared, adapters = scheme.share(targets, seed=0, sweeps=15)
    places = torch.randperm(scheme.rank, generator=noise)
    layout = scheme.layout([target.shape for target in targets])

    def shuffled(part: Tensors, axes: Any) -> Tensors:
        return {k: t.index_select(axes[k].index("rank"), places) for k, t in part.items()}

    own = [shuffled(adapter, axes) for adapter, axes in zip(adapters, layout.adapters, strict=True)]
    return scheme, shuffled(shared, layout.shared), own, targets


def refitted_error(name: str, shared: Tensors, adapters: list[Tensors], targets: list[Target], size: int) -> float:
    """The weighted error of the family cut to `size` directions, with fitted mixings."""
    scheme = make(name, {"rank": size})
    shared, adapters = leading(scheme, [target.shape for target in targets], shared, adapters, size)
    kernels = [
        scheme.expand(shared, scheme.fit(shared, adapter, target), target.shape)
        for adapter, target in zip(adapters, targets, strict=True)
    ]
    return sum(t.weight * fit_error(kernel.flatten(1), t) for kernel, t in zip(kernels, targets, strict=True))


@pytest.mark.parametrize("taps", [3, 1])
@pytest.mark.parametrize("name", CUT)
def test_ordering_directions_leaves_the_kernels_unchanged(name: str, taps: int) -> None:
    scheme, shared, adapters, targets = family(name, taps)
    ordered = order(scheme, shared, adapters, targets)
    for before, after, target in zip(adapters, ordered.adapters, targets, strict=True):
        kernel = scheme.expand(shared, before, target.shape)
        assert torch.allclose(scheme.expand(ordered.shared, after, target.shape), kernel, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CUT)
def test_the_reported_error_is_that_of_the_cut_family(name: str) -> None:
    scheme, shared, adapters, targets = family(name)
    ordered = order(scheme, shared, adapters, targets)
    measured = [
        refitted_error(name, ordered.shared, ordered.adapters, targets, size) for size in range(1, scheme.rank + 1)
    ]
    assert ordered.errors == pytest.approx(measured, rel=1e-5)


@pytest.mark.parametrize("name", CUT)
def test_the_error_never_rises_with_the_size(name: str) -> None:
    curve = order(*family(name)).errors
    assert all(larger <= smaller for smaller, larger in pairwise(curve))


@pytest.mark.parametrize("name", CUT)
def test_an_ordered_family_loses_less_than_a_shuffled_one(name: str) -> None:
    """At every size down to half: one by one is not the best of all ways to choose a few of many."""
    scheme, shared, adapters, targets = family(name)
    ordered, shuffled = order(scheme, shared, adapters, targets).errors, errors(scheme, shared, adapters, targets)
    assert ordered[-1] == pytest.approx(shuffled[-1])
    half = slice(scheme.rank // 2, -1)
    assert all(own < other for own, other in zip(ordered[half], shuffled[half], strict=True))


def test_elimination_drops_the_direction_of_least_error_first() -> None:
    """Compared with trying every direction, for shared CP."""
    scheme, shared, adapters, targets = family("cp")
    ordered = order(scheme, shared, adapters, targets)

    def without(q: int) -> float:
        keep = [place for place in range(RANK) if place != q]
        own = [{"U": a["U"][:, keep], "b": a["b"][keep]} for a in adapters]
        return refitted_error("cp", {"V": shared["V"][keep]}, own, targets, RANK - 1)

    assert ordered.errors[-2] == pytest.approx(min(map(without, range(RANK))), rel=1e-6)


@pytest.mark.parametrize("name", CUT)
def test_a_joint_fit_from_given_tensors_never_loses(name: str) -> None:
    scheme, shared, adapters, targets = family(name)
    before = errors(scheme, shared, adapters, targets)[-1]
    assert errors(scheme, *scheme.refine(shared, adapters, targets, 5), targets)[-1] <= before * (1 + 1e-9)


def test_directions_that_are_not_finite_are_refused() -> None:
    scheme, shared, adapters, targets = family("cp")
    shared["V"][0, 0] = torch.nan
    with pytest.raises(NumericsError) as raised:
        order(scheme, shared, adapters, targets)
    assert raised.value.code == "KD703"


def test_schemes_with_rows_can_be_cut() -> None:
    assert {name for name, kind in SCHEMES.items() if issubclass(kind, CuttableScheme)} == set(CUT)
