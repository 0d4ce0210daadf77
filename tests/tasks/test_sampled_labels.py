"""Laws of drawn labels: the mean squared gradient is the softmax's, with far less noise than its own labels have."""

import pytest
import torch
from torch import Tensor

from kdna_convert.tasks.sampled_labels import draw

SHARES = torch.tensor([[0.2, 0.3, 0.5], [0.98, 0.015, 0.005], [0.999, 0.001, 0.0], [1.0, 0.0, 0.0]])


def squares(share_bc: Tensor, labels_b: Tensor, weights_b: Tensor) -> Tensor:
    """The second moments of the gradient at the logits, one for each image."""
    gradient_bc = weights_b[:, None] * (share_bc - torch.eye(3)[labels_b])
    return gradient_bc[:, :, None] * gradient_bc[:, None]


def mean_and_spread(share_c: Tensor, drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    each = squares(share_c.expand(len(drawn[0]), 3), *drawn)
    return each.mean(0), each.std(0).max()


@pytest.mark.parametrize("image", range(len(SHARES)))
def test_the_mean_squared_gradient_is_that_of_the_softmax(image: int) -> None:
    share_c = SHARES[image]
    drawn = draw(share_c.expand(20_000, 3), torch.Generator().manual_seed(0))
    expected = share_c.diag() - share_c[:, None] * share_c
    mean, _ = mean_and_spread(share_c, drawn)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.03 * float(expected.max()) + 1e-9)


@pytest.mark.parametrize("image", [1, 2])
def test_where_the_net_is_certain_the_noise_is_a_fraction(image: int) -> None:
    share_c, generator = SHARES[image], torch.Generator().manual_seed(0)
    _, spread = mean_and_spread(share_c, draw(share_c.expand(20_000, 3), generator))
    plain = torch.multinomial(share_c, 20_000, replacement=True, generator=generator)
    _, plain_spread = mean_and_spread(share_c, (plain, torch.ones(20_000)))
    assert spread < 0.25 * plain_spread


def test_labels_are_seeded() -> None:
    first, again = (draw(SHARES, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
