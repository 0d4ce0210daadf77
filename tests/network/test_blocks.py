"""Laws of the blocks of a net, and of the normalization behind each layer."""

from typing import Any

import pytest
import torch
from support.small_nets import small
from support.tiny import Net, ResidualBlock
from torch import Tensor, nn

from kdna_convert.core.specs import Layer
from kdna_convert.network.blocks import find_blocks
from kdna_convert.network.sums import watching_sums
from kdna_convert.routing import ROUTINGS, attach

EXAMPLE = torch.randn(1, 3, 16, 16)


def names(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def test_residual_blocks_follow_each_other_and_end_in_a_sum() -> None:
    net = Net(blocks=3).eval()
    blocks = {block.name: block for block in find_blocks(net, names(net), EXAMPLE)}
    assert list(blocks) == ["stem", "blocks.0", "blocks.1", "blocks.2", "fc"]
    assert [block.follows for block in blocks.values()] == [False, True, True, True, False]
    first, second = blocks["blocks.1"].layers
    assert (first.norm, first.sum) == ("blocks.1.bn1", None)
    assert (second.norm, second.sum, second.skip) == ("blocks.1.bn2", 1, 0)  # x + branch: the skip path is on the left


class InPlace(ResidualBlock):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x)))))
        y += x
        return torch.relu_(y)


def test_a_residual_sum_in_place_is_found() -> None:
    net = nn.Sequential(InPlace(3), InPlace(3)).eval()
    first, second = find_blocks(net, names(net), EXAMPLE)
    assert (first.name, second.name) == ("0", "1")
    assert (first.layers[1].sum, first.layers[1].skip) == (0, 1)


@pytest.mark.parametrize("routing", [kind() for kind in ROUTINGS.values()], ids=list(ROUTINGS))
def test_sums_inside_a_router_do_not_end_a_block(routing: Any) -> None:
    net = Net(blocks=2).eval()
    layers = [
        Layer(name, "Conv2d", tuple(module.weight.shape))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    for group in routing.groups(layers, net):
        attach(net, group, routing)
    sums: list[tuple[int, int]] = []
    with torch.no_grad(), watching_sums(net, lambda place, left, _: sums.append((place, left.ndim))):
        net(torch.randn(3, 3, 16, 16))
    assert sums == [(0, 4), (1, 4)]


def test_a_layer_that_runs_twice_is_in_no_block() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(shared, nn.Conv2d(3, 3, 1), shared).eval()
    held = [layer.name for block in find_blocks(net, ["0", "1"], EXAMPLE) for layer in block.layers]
    assert held == ["1"]


class TwoInputs(nn.Module):
    """A branch that takes two tensors: no block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.meet = Meet()

    def forward(self, x: Tensor) -> Tensor:
        return self.meet(self.conv(x), x)


class Meet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.conv(a * b)


def test_a_module_with_two_inputs_is_never_a_block() -> None:
    net = TwoInputs().eval()
    (block,) = find_blocks(net, names(net), EXAMPLE)
    assert block.name == ""
    assert [layer.name for layer in block.layers] == ["conv", "meet.conv"]


def test_every_layer_of_a_net_is_found_once_in_the_order_of_execution() -> None:
    net = small()
    blocks = find_blocks(net, names(net), torch.randn(1, 3, 12, 12))
    assert [layer.name for block in blocks for layer in block.layers] == ["stem", "body.0", "body.2", "last", "head"]
    assert next(layer for block in blocks for layer in block.layers).norm == "norm"


def test_finding_blocks_leaves_hooks_and_modes_alone() -> None:
    net = Net().train()
    find_blocks(net, names(net), EXAMPLE)
    assert net.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_net_in_inference_mode_has_layers_in_no_block_or_in_one() -> None:
    class Inference(Net):
        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    blocks = find_blocks(Inference().eval(), ["blocks.0.conv1", "blocks.1.conv2"], EXAMPLE)
    assert not [block for block in blocks if block.follows]
