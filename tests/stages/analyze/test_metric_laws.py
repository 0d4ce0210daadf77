"""The laws that every similarity metric obeys."""

import pytest
import torch
from torch import Tensor

from kdna_convert.core.linalg import kronecker
from kdna_convert.stages.analyze.similarity import METRICS, Kernel, centered_gram

SHAPES = [(6, 4, 3, 3), (8, 4, 3, 3), (6, 4, 1, 1), (5, 6, 3, 3), (6, 4, 3, 3)]
every_metric = pytest.mark.parametrize("name", METRICS)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernels(scale: float = 1.0) -> list[Kernel]:
    """Kernels of several shapes and widths, under dense and Kronecker moments."""
    compared = []
    for place, shape in enumerate(SHAPES):
        kernel_on = scale * draw(*shape, seed=place).flatten(1)
        root = draw(kernel_on.shape[1], 2 * kernel_on.shape[1], seed=place + 10)
        moment = root @ root.T / root.shape[1]
        gram = centered_gram(draw(12, 7, seed=place + 20))
        compared.append(Kernel(shape, kernel_on, kronecker(moment, shape[1]) if place % 2 else moment, gram))
    return compared


@every_metric
def test_a_metric_is_a_square_of_shares_in_float64(name: str) -> None:
    values = METRICS[name](kernels())
    assert values.shape == (len(SHAPES), len(SHAPES))
    assert values.dtype == torch.float64
    defined = values[~values.isnan()]
    assert ((defined >= 0) & (defined <= 1)).all()
    assert not values.diagonal().isnan().any()


@every_metric
def test_the_order_of_the_layers_does_not_matter(name: str) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = METRICS[name]([kernels()[place] for place in order])
    expected = METRICS[name](kernels())[order[:, None], order]
    torch.testing.assert_close(permuted, expected, equal_nan=True)


@every_metric
def test_the_scale_of_the_weights_does_not_matter(name: str) -> None:
    torch.testing.assert_close(
        METRICS[name](kernels(1e3)), METRICS[name](kernels()), rtol=1e-4, atol=1e-6, equal_nan=True
    )


@every_metric
def test_a_metric_leaves_its_kernels_as_they_are(name: str) -> None:
    given = kernels()
    METRICS[name](given)
    assert all(torch.equal(one.kernel_on, two.kernel_on) for one, two in zip(given, kernels(), strict=True))


@every_metric
def test_one_layer_alone_has_one_similarity(name: str) -> None:
    assert METRICS[name](kernels()[:1]).shape == (1, 1)
