"""The weight of a standardizing layer: every kernel of mean 0 and a deviation below the bound has one."""

import pytest
import torch
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F

from kdna_convert.core.linalg import Kronecker, dense, kronecker
from kdna_convert.core.standardize import Standardized, as_run, encode, standardize, without_mean
from kdna_convert.network.standardizing import running_kernel

EPS = (1e-5, 1e-6, 1e-8)


def kernel(deviation: float, mean: float = 0.0) -> Tensor:
    drawn = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return standardize(drawn, 0.0, deviation) + mean


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("deviation", [1e-3, 0.1, 0.5, 0.99, 0.9999])
def test_the_layer_runs_the_kernel_that_was_encoded(eps: float, deviation: float) -> None:
    layer = StdConv2d(4, 6, 3, eps=eps)
    layer.weight.data = encode(kernel(deviation).float(), Standardized(eps, 1.0))
    x = torch.randn(2, 4, 9, 9)
    expected = F.conv2d(x, kernel(deviation).float(), padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5 * deviation)
    torch.testing.assert_close(running_kernel(layer), kernel(deviation), rtol=1e-5, atol=1e-6 * deviation)


@pytest.mark.parametrize("bound", [1.0, 3.0])
def test_the_mean_is_lost_and_the_deviation_is_bounded(bound: float) -> None:
    large = as_run(kernel(5 * bound, mean=0.7), bound)
    torch.testing.assert_close(large, kernel(bound), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(as_run(kernel(bound / 2, mean=0.7), bound), kernel(bound / 2))
    weight = encode(kernel(5 * bound, mean=0.7), Standardized(1e-6, bound))
    torch.testing.assert_close(standardize(weight, 1e-6, bound), large, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", [StdConv2d(4, 6, 3), ScaledStdConv2d(4, 6, 3, gamma=1.7)], ids=["plain", "gain"])
def test_the_running_kernel_is_what_multiplies_the_patches(layer: nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, 2.0, 5.0)
    if hasattr(layer, "gain"):
        nn.init.uniform_(layer.gain, -1.0, 2.0)
    x = torch.randn(2, 4, 9, 9)
    plain = F.conv2d(x, running_kernel(layer).float(), layer.bias, padding=layer.padding)
    torch.testing.assert_close(layer(x), plain, rtol=1e-4, atol=1e-4)


def test_the_running_kernel_of_a_plain_layer_is_its_weight_in_float64() -> None:
    conv = nn.Conv2d(4, 6, 3, groups=2).half()
    assert torch.equal(running_kernel(conv), conv.weight.double())


def test_a_moment_without_mean_is_that_of_centered_patches() -> None:
    u = torch.randn(50, 12, dtype=torch.float64) + 1
    centered = u - u.mean(1, keepdim=True)
    torch.testing.assert_close(without_mean(u.T @ u, 4), centered.T @ centered)
    product = kronecker(u.T @ u, 4)
    projection = torch.eye(12, dtype=torch.float64) - 1 / 12
    expected = kronecker(projection @ dense(product) @ projection, 4)
    found = without_mean(product, 4)
    assert isinstance(found, Kronecker)
    torch.testing.assert_close(dense(found), dense(expected))


def test_a_channel_of_zeros_has_a_weight_and_a_gradient() -> None:
    zeros = torch.zeros(2, 3, 1, 1, requires_grad=True)
    weight = encode(zeros, Standardized(1e-6, 1.0))
    weight.sum().backward()
    assert torch.equal(weight, torch.zeros_like(weight))
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()
