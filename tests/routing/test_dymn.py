"""The routing dymn: the blocks it finds, its formula computed directly, its published cost, its options."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from timm.layers import SqueezeExcite
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenetv2, mobilenetv3

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.routing import ROUTINGS, attach, routers
from kdna_convert.routing.inverted_residual import BlockParts, inverted_residuals

Dymn = ROUTINGS["dymn"]


def block(act: nn.Module | None = None, stride: int = 1, expand: bool = True) -> nn.Sequential:
    """8 channels to 16 inside, or 8 without an expansion, to 6: no norms, so that a formula is short."""
    inside = 16 if expand else 8
    torch.manual_seed(0)
    first = [nn.Conv2d(8, inside, 1), nn.ReLU6()] if expand else []
    inner = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside)
    return nn.Sequential(*first, inner, act or nn.ReLU(), nn.Conv2d(inside, 6, 1)).eval()


def separable(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, groups=channels), nn.ReLU(), nn.Conv2d(channels, channels, 1)]


def described(net: nn.Module) -> list[Layer]:
    convs = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    return [Layer(name, "Conv2d", tuple(conv.weight.shape), conv.groups) for name, conv in convs]


def routed(net: nn.Module, start: bool = False, **options: Any) -> nn.Module:
    """With routers away from the identity, unless at the start."""
    for group in Dymn(**options).groups(described(net), net):
        attach(net, group, Dymn(**options))
    generator = torch.Generator().manual_seed(1)
    for router in routers(net).values():
        for parameter in router.parameters():
            with torch.no_grad():
                parameter.add_((not start) * 0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def parts(net: nn.Module) -> list[tuple[str, ...]]:
    return [(*filter(None, [b.expand]), b.depthwise, b.activation, b.project) for b in inverted_residuals(net)]


def test_blocks_of_torchvision_and_timm_are_found() -> None:
    setting = mobilenetv3.InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 1.0)
    gated = {"se_layer": partial(SqueezeExcite, rd_ratio=0.5)}
    assert parts(mobilenetv2.InvertedResidual(8, 8, 1, 2)) == [("conv.0.0", "conv.1.0", "conv.1.2", "conv.2")]
    assert parts(mobilenetv2.InvertedResidual(8, 8, 1, 1)) == [("conv.0.0", "conv.0.2", "conv.1")]
    assert parts(mobilenetv3.InvertedResidual(setting, nn.BatchNorm2d)) == [
        ("block.0.0", "block.1.0", "block.1.2", "block.3.0")
    ]
    assert parts(InvertedResidual(8, 8, exp_ratio=2.0, **gated)) == [("conv_pw", "conv_dw", "bn2.act", "conv_pwl")]
    assert parts(DepthwiseSeparableConv(8, 8, **gated)) == [("conv_dw", "bn1.act", "conv_pw")]


def test_blocks_in_one_flat_row_share_no_layer() -> None:
    row = nn.Sequential(*block(), nn.ReLU(), *separable(6), *separable(6))
    blocks = inverted_residuals(row)
    assert blocks == [
        BlockParts("0", "2", "3", "4"),
        BlockParts(None, "6", "7", "8"),
        BlockParts(None, "9", "10", "11"),
    ]
    assert all(not set(one.pointwise) & set(other.pointwise) for one, other in pairwise(blocks))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(8, 8, 7, groups=8), nn.Conv2d(8, 16, 1), nn.GELU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 8, 1)),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2)),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), act := nn.ReLU(), nn.Conv2d(8, 8, 1), act),
        nn.Conv2d(8, 8, 3, groups=8),
    ],
    ids=["no activation", "a conv between", "grouped", "grouped project", "shared activation", "alone"],
)
def test_what_is_no_block_is_left(net: nn.Module) -> None:
    assert inverted_residuals(net) == []
    assert Dymn().groups(described(net), net) == []


def test_a_block_needs_its_pointwise_layers_and_brings_the_others() -> None:
    net = block()
    first, inner, last = described(net)
    (members,) = Dymn().groups([first, last], net)
    assert [(layer.name, layer.kind, layer.shape) for layer in members] == [
        ("0", "Conv2d", (16, 8, 1, 1)),
        ("2", "Conv2d", (16, 1, 3, 3)),
        ("3", "ReLU", (16, 8)),
        ("4", "Conv2d", (6, 16, 1, 1)),
    ]
    assert Dymn().groups([first, inner], net) == Dymn().groups([inner, last], net) == []


def slow(net: nn.Sequential, x: Tensor) -> Tensor:
    """The formula of routing/dymn.py for one image (channels, F, T), of a block with an expansion and a ReLU."""
    gates: Any = [net[place].gate for place in (0, 2, 3, 4)]
    conv, (F_, T_) = gates[0].context.weight, x.shape[1:]
    rows = torch.stack([F.hardswish(conv @ x[:, f].mean(1)) for f in range(F_)])
    columns = torch.stack([F.hardswish(conv @ x[:, :, t].mean(1)) for t in range(T_)])
    h = torch.cat([rows, columns]).mean(0)

    def kernel(layer: Any, gate: Any) -> Tensor:
        kernels = [layer.weight + delta for delta in (*gate.deltas, -gate.deltas.sum(0))]
        shares = (gate.head.weight @ h + gate.head.bias).softmax(0)
        return sum(share * one for share, one in zip(shares, kernels, strict=True))

    y = F.relu6(F.conv2d(x, kernel(net[0], gates[0]), net[0].bias))
    y = F.conv2d(y, kernel(net[2], gates[1]), net[2].bias, net[2].stride, 1, 1, len(y))
    theta = 2 * torch.sigmoid(gates[2].curve.weight @ h + gates[2].curve.bias) - 1
    slope, other, height, base = theta.view(4, -1, 1, 1)
    y = torch.maximum((1 + slope) * y + height / 2, other * y + base / 2)
    for f in range(y.shape[1]):
        for t in range(y.shape[2]):
            stride = F_ // y.shape[1]
            row, column = (c[stride * at : stride * (at + 1)].mean(0) for c, at in ((rows, f), (columns, t)))
            y[:, f, t] *= 2 * torch.sigmoid(gates[2].rows(row)) * 2 * torch.sigmoid(gates[2].columns(column))
    return F.conv2d(y, kernel(net[4], gates[3]), net[4].bias)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_block_is_the_formula(stride: int) -> None:
    net = routed(block(stride=stride), kernels=3).double()
    x = torch.randn(3, 8, 6, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.stack([slow(net, image) for image in x]), atol=1e-9, rtol=1e-9)


def test_another_activation_keeps_its_curve_on_a_line_of_the_input() -> None:
    net = routed(block(nn.SiLU(), expand=False), kernels=1, attention=False)
    x = torch.randn(1, 8, 6, 6)
    gate: Any = net[1].gate
    h = F.hardswish(torch.cat([x.mean(3), x.mean(2)], 2).mT @ net[0].gate.context.weight.T).mean(1)
    slope, height = (2 * torch.sigmoid(gate.curve(h)) - 1).view(2, 1, 8, 1, 1)
    torch.testing.assert_close(net(x), net[2](F.silu((1 + slope) * net[0](x) + height / 2)))


@pytest.mark.parametrize("kernels", [2, 4])
def test_the_parameters_are_those_of_the_paper_but_for_the_contexts_norm(kernels: int) -> None:
    net = block()
    weights, inside, inputs, width = sum(layer.params for layer in described(net)), 16, 8, 32
    before = sum(p.numel() for p in net.parameters())
    added = sum(p.numel() for p in routed(net, kernels=kernels).parameters()) - before
    mixing = (kernels - 1) * weights + 3 * (width * kernels + kernels)
    attention, curve = 2 * (width * inside + inside), width * 4 * inside + 4 * inside
    assert added == mixing + inputs * width + attention + curve


@pytest.mark.parametrize(("inside", "width"), [(16, 32), (144, 40), (240, 64), (960, 128)])
def test_the_context_is_a_quarter_as_wide_as_the_inside_within_limits(inside: int, width: int) -> None:
    layers = [Layer("a", "Conv2d", (inside, 8, 1, 1)), Layer("b", "Conv2d", (inside, 1, 3, 3), inside)]
    layers += [Layer("c", "ReLU", (inside, 8)), Layer("d", "Conv2d", (8, inside, 1, 1))]
    for options, expected in (({}, width), ({"width": 5}, 5)):
        routing = Dymn(**options)
        built = routing.build(layers, [torch.ones(layer.shape) for layer in layers], [0] * 4)
        assert built[0].context.weight.shape == (expected, 8)
        assert routing.macs([layers[0]]) == expected * 4 + 3 * layers[0].params


def test_one_kernel_leaves_the_convolutions_as_they_are() -> None:
    net = routed(block(), kernels=1)
    assert list(routers(net)) == ["0", "3"]
    assert not any("deltas" in name or "head" in name for name, _ in net.named_parameters())
    assert Dymn(kernels=1).macs([described(net)[0]]) == 0
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(net[0](x), F.conv2d(x, net[0].weight, net[0].bias))
    assert not torch.allclose(net(x), block()(x), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "names"), [({"activation": False}, ("rows", "columns")), ({"attention": False}, ("curve",))]
)
def test_an_activation_has_what_the_options_leave_it(options: dict[str, bool], names: tuple[str, ...]) -> None:
    gate = routed(block(), **options).get_submodule("3.gate")
    assert tuple(dict(gate.named_children())) == names


def test_without_curve_and_attention_the_activation_has_no_router_and_high_temperature_mixes_alike() -> None:
    net, x = routed(block(), activation=False, attention=False), torch.randn(2, 8, 5, 5)
    assert list(routers(net)) == ["0", "2", "4"]
    assert not torch.allclose(net(x), block()(x), atol=1e-3)
    for router in routers(net).values():
        router.temperature.fill_(1e9)
    torch.testing.assert_close(net(x), block()(x))


def test_nothing_of_a_batch_is_left_behind_and_a_part_by_itself_is_what_it_was() -> None:
    net, x = routed(block()), torch.randn(2, 8, 5, 5)
    net(x)
    assert all(router.state.value is None for router in routers(net).values())
    inner = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(net[4](inner), block()[4](inner))
    torch.testing.assert_close(net[3](inner), inner.relu())


def test_the_layout_of_the_images_changes_nothing() -> None:
    net, x = routed(block()), torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), net(x))


def test_an_exported_block_gives_the_same() -> None:
    net, x = routed(block(stride=2)), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        exported = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(exported(x), net(x))


def test_limits_and_codes() -> None:
    for options in ({"kernels": 0}, {"width": 0}, {"kernels": 1, "activation": False, "attention": False}):
        with pytest.raises(RecipeError, match="KD203: routing dymn: "):
            Dymn(**options)
    assert Dymn().can_route(Layer("a", "Conv2d", (8, 8, 1, 1))) is None
    assert Dymn().can_route(Layer("a", "Conv2d", (8, 1, 3, 3), 8, reason="KD103")) is None
    for layer in (Layer("a", "Conv2d", (8, 8, 3, 3)), Layer("a", "Conv1d", (8, 8, 1)), Layer("a", "Linear", (8, 8))):
        assert Dymn().can_route(layer) == "KD137"
    assert Dymn().can_route(Layer("a", "StdConv2d", (8, 8, 1, 1))) == "KD137"
