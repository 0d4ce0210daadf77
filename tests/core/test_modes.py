"""Laws of eval_mode: what is inside runs in eval mode, and every module has its own mode afterwards."""

import pytest
from torch import nn

from kdna_convert.core.modes import eval_mode


def mixed() -> nn.Sequential:
    """A net in train mode with one module in eval mode."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    net[1][0].eval()
    return net


def modes(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def test_modes_return_whatever_is_set_inside() -> None:
    first, second = mixed(), mixed().eval()
    before = modes(first), modes(second)
    with eval_mode(first, second):
        assert not any(modes(first) + modes(second))
        second[1].train()
    assert (modes(first), modes(second)) == before


def test_modes_return_after_an_error() -> None:
    net = mixed()
    before = modes(net)
    with pytest.raises(ZeroDivisionError), eval_mode(net):
        raise ZeroDivisionError
    assert modes(net) == before
