"""Frozen norms folded into their convolutions: the same outputs and gradients with less memory."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from support.tiny import Net
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from kdna_convert.core.specs import Layer
from kdna_convert.network.blocks import find_blocks
from kdna_convert.routing import ROUTINGS, attach, routers
from kdna_convert.stages.finetune.folded_norms import Pair, folded_norms, norm_pairs, plain_convolutions


def pairs_of(net: nn.Module, x: Tensor) -> tuple[Pair, ...]:
    return norm_pairs(net, net, find_blocks(net, plain_convolutions(net), x), x)


def settled(net: nn.Module) -> nn.Module:
    """In eval mode, with statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net.eval()


def images(count: int = 4, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["tiny", "resnet18", "mobilenetv2_050", "efficientnet_b0"])
def test_folded_norms_keep_outputs_and_gradients(name: str) -> None:
    net = settled(Net(8) if name == "tiny" else timm.create_model(name, num_classes=5)).double()
    x = images(2, 16 if name == "tiny" else 32).double()
    pairs = pairs_of(net, x)
    assert len(pairs) >= 4
    plain = net(x)
    plain.square().sum().backward()
    expected = {key: parameter.grad for key, parameter in net.named_parameters()}
    net.zero_grad()
    with folded_norms(net, pairs):
        folded = net(x)
    folded.square().sum().backward()
    assert torch.allclose(folded, plain, rtol=1e-9, atol=1e-12)
    for key, parameter in net.named_parameters():
        scale = expected[key].abs().max()
        assert torch.allclose(parameter.grad, expected[key], rtol=1e-6, atol=float(1e-9 * scale)), key
    assert not any("forward" in module.__dict__ for module in net.modules())


class ReadTwice(nn.Module):
    """The convolution's output goes to its norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.fc((y + self.bn(y)).mean((2, 3)))


def test_a_convolution_with_a_second_reader_is_not_folded() -> None:
    assert pairs_of(settled(ReadTwice()), images()) == ()


def kept_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes that the forward pass stores for the backward pass, without the parameters."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    storages: dict[int, int] = {}
    held = []

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        net(x)
    return sum(size for pointer, size in storages.items() if pointer not in own)


def test_folded_norms_store_less_for_the_backward_pass() -> None:
    net = settled(Net(16, 4))
    dense = kept_bytes(copy.deepcopy(net).train(), images(32))
    with folded_norms(net, pairs_of(net, images())):
        assert kept_bytes(net, images(32)) <= 0.8 * dense


def test_a_layer_that_a_router_runs_keeps_its_norm_and_its_router() -> None:
    net, x = settled(Net(8)), images()
    routed = attach(copy.deepcopy(net), [Layer("blocks.0.conv1", "Conv2d", (8, 8, 3, 3))], ROUTINGS["se"]())
    pairs = norm_pairs(net, routed, find_blocks(net, plain_convolutions(net), x), x)
    assert {*pairs_of(net, x)} - {*pairs} == {("blocks.0.conv1", "blocks.0.bn1")}
    with folded_norms(routed, pairs):
        routed(x).sum().backward()
    assert routed.get_parameter("blocks.0.conv1.gate.fc2.weight").grad is not None
    assert list(routers(routed)) == ["blocks.0.conv1"]
