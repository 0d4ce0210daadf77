"""Laws of padding: a convolution of its padded input, without padding, gives what the convolution gives."""

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional as F

from kdna_convert.core.padding import pad, pads_same

CONVS = {
    "none": nn.Conv2d(3, 4, 3),
    "zeros": nn.Conv2d(3, 4, (3, 5), stride=2, padding=(1, 2)),
    "string": nn.Conv2d(3, 4, (2, 3), padding="same", dilation=2),
    "reflect": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"),
    "timm": Conv2dSame(3, 4, 3, stride=2),
    "timm, dilated": Conv2dSame(3, 4, (3, 5), stride=(3, 2), dilation=(2, 1)),
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("size", [(9, 9), (8, 11), (6, 7)])
def test_padding_the_input_replaces_the_layers_own(name: str, size: tuple[int, int]) -> None:
    conv = CONVS[name]
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bare = F.conv2d(pad(conv, x), conv.weight, conv.bias, conv.stride, 0, conv.dilation)
        torch.testing.assert_close(bare, conv(x))


def test_same_padding_is_timms_for_the_kernel_size_that_is_given() -> None:
    conv, x = Conv2dSame(3, 4, 3, stride=2), torch.randn(1, 3, 10, 9)
    for kernel in ((3, 3), (5, 2)):
        assert torch.equal(pad(conv, x, kernel), pad_same(x, list(kernel), conv.stride, conv.dilation))


def test_a_class_that_may_pad_same_says_whether_it_does() -> None:
    assert pads_same(StdConv2dSame(3, 4, 3, stride=2))
    assert not pads_same(StdConv2dSame(3, 4, 3, stride=1))
    assert not pads_same(nn.Conv2d(3, 4, 3, padding="same"))
