"""Laws of batch normalization in eval mode: it is a scale and a shift per channel."""

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.network.batch_norm import foldable_norms, is_batch_norm, norm_affine, plain_norm


def norm(affine: bool = True) -> nn.BatchNorm2d:
    """A normalization with statistics and parameters of its own, in eval mode."""
    module, generator = nn.BatchNorm2d(5, affine=affine).eval(), torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(5, generator=generator) + 0.1)
    return module


def applied(scale: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    return x * scale.float().view(-1, 1, 1) + shift.float().view(-1, 1, 1)


@pytest.mark.parametrize("affine", [True, False])
def test_the_scale_and_shift_do_what_the_norm_does(affine: bool) -> None:
    x, module = torch.randn(2, 5, 3, 3), norm(affine)
    scale, shift = norm_affine(module)
    assert scale.dtype == shift.dtype == torch.float64
    assert not scale.requires_grad
    torch.testing.assert_close(applied(scale, shift, x), module(x))


def test_a_plain_norm_has_the_scale_and_shift_it_is_made_of() -> None:
    source, target = norm(), nn.BatchNorm2d(5).eval()
    scale, shift = norm_affine(source)
    target.load_state_dict(plain_norm(scale.float(), shift.float(), target.eps))
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(target(x), source(x))


def test_only_norms_with_all_their_tensors_are_foldable() -> None:
    net = nn.ModuleDict(
        {
            "whole": nn.BatchNorm2d(4),
            "bare": nn.BatchNorm2d(4, affine=False),
            "batch": nn.BatchNorm2d(4, track_running_stats=False),
            "float16": nn.BatchNorm2d(4).half(),
            "layer": nn.LayerNorm(4),
        }
    )
    assert list(foldable_norms(net)) == ["whole"]
    assert [name for name, module in net.items() if is_batch_norm(module)] == ["whole", "bare", "float16"]
