"""The multiply-adds of a net."""

import torch
from torch import Tensor, nn

from kdna_convert.network.totals import macs


class Add(nn.Module):
    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        return x + token


class Tokens(nn.Module):
    """Hands a view of a parameter to a module, as class tokens of CaiT and position embeddings of PiT are."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 4, 1))
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.conv(x), self.token.expand(len(x), -1, -1).unsqueeze(-1))


def test_a_module_that_takes_a_view_of_a_parameter_is_counted_and_keeps_its_flags() -> None:
    net = Tokens()
    assert macs(net, torch.randn(2, 3, 8, 8)) == 4 * 3 * 9 * 36
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, False, True]
