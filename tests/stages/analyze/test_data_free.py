"""Laws of moments without images: noise of the right statistics, and moments that are positive definite."""

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.core.linalg import Kronecker
from kdna_convert.stages.analyze.data_free import _noise, data_free, towards_independence
from kdna_convert.stages.analyze.survey import survey


@pytest.mark.parametrize("input_size", [(3, 16, 12), (4, 20), (2, 6, 5, 4), (7,)])
def test_noise_has_unit_variance_zero_mean_and_the_asked_size(input_size: tuple[int, ...]) -> None:
    x = torch.cat(list(_noise(input_size, 40, seed=0)))
    assert x.shape == (40, *input_size)
    if len(input_size) > 1:
        axes = tuple(range(2, x.dim()))
        torch.testing.assert_close(x.mean(axes), torch.zeros(40, input_size[0]), rtol=0, atol=1e-5)
        torch.testing.assert_close(x.var(axes, correction=0), torch.ones(40, input_size[0]))


def test_noise_is_smooth_and_its_channels_agree() -> None:
    x = torch.cat(list(_noise((3, 32, 32), 64, seed=0)))
    assert (x[..., 1:] * x[..., :-1]).mean() > 0.6
    assert (x[:, 0] * x[:, 1]).mean() > 0.7


def test_moments_without_images_are_positive_definite_seeded_and_count_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    layers = survey(model, torch.randn(1, 3, 12, 12))
    first, again = (data_free(model, layers, (3, 12, 12), images=16) for _ in range(2))
    for name, item in first.items():
        assert isinstance(item.second, Tensor)
        assert item.count == 0
        assert torch.linalg.eigvalsh(item.second.double())[0] > 0.01 * item.second.diagonal().mean()
        assert torch.equal(item.second, again[name].second)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel_size", [(), (3,), (3, 3), (1, 5), (2, 3, 3)])
def test_towards_independence_keeps_the_mean_energy(kernel_size: tuple[int, ...]) -> None:
    taps = int(torch.tensor(kernel_size).prod()) if kernel_size else 1
    root = torch.randn(4 * taps, 4 * taps)
    moment = root @ root.T
    mixed = towards_independence(moment, kernel_size)
    assert isinstance(mixed, Tensor)
    torch.testing.assert_close(mixed.trace(), moment.trace())
    factors = Kronecker(moment[:4, :4].clone(), torch.eye(taps) + 0.1)
    mixed_factors = towards_independence(factors, kernel_size)
    torch.testing.assert_close(torch.kron(*mixed_factors).trace(), torch.kron(*factors).trace())


def test_neighboring_taps_correlate_by_their_distance() -> None:
    mixed = towards_independence(torch.eye(18), (3, 3))
    assert isinstance(mixed, Tensor)
    torch.testing.assert_close(mixed[0, :9], torch.tensor([4, 1, 0.5, 1, 0.5, 0.25, 0.5, 0.25, 0.125]) / 4)
    assert mixed[0, 9:].abs().max() == 0


def test_a_batch_has_at_most_the_asked_images() -> None:
    sizes: list[int] = []
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    layers = survey(net, torch.randn(1, 3, 6, 6))
    data_free(net, layers, (3, 6, 6), images=5, batch=2)
    assert max(sizes) == 2
