"""The routing context: its formulas computed directly, the scope of the context, its cost and its limits."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdna_convert.core.errors import DataError, RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.routing import ROUTINGS, attach, routers

Context = ROUTINGS["context"]


class Swapped(nn.Module):
    """Two layers that run in the other order than they are defined in."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.late(F.relu(self.early(x)))


def chain(count: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(count))).eval()


def described(net: nn.Module, positions: int = 25) -> list[Layer]:
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    return [Layer(n, "Conv2d", tuple(m.weight.shape), m.groups, out_positions=positions) for n, m in layers]


def routed(net: nn.Module, **options: Any) -> Any:
    """With routers away from the identity."""
    for group in Context(**options).groups(described(net), net):
        attach(net, group, Context(**options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for router in routers(net).values():
            for parameter in router.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return net


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 8, 5, 5, generator=torch.Generator().manual_seed(2))


def gated(layer: Any, x: Tensor, hidden: Tensor) -> Tensor:
    """One image (channels, height, width) through a layer whose hidden channels are known."""
    gates = 2 * torch.sigmoid(layer.gate.head.weight @ hidden + layer.gate.head.bias)
    inputs, outputs, taps = gates[:8, None, None], gates[8:16, None, None], gates[16:]
    weight = layer.weight * taps.view(3, 3) if len(taps) else layer.weight
    return outputs * (F.conv2d(inputs * x, weight, None, padding=1) + layer.bias[:, None, None])


@pytest.mark.parametrize("taps", [False, True])
def test_an_images_gates_know_the_layer_before(taps: bool) -> None:
    net = routed(chain(), taps=taps)
    for image, output in zip(images(), net(images()), strict=True):
        hidden, x = None, image
        for layer in net:
            inputs = torch.cat([x.mean((1, 2)), *([] if hidden is None else [hidden])])
            hidden = (layer.gate.fc1.weight @ inputs).relu()
            x = gated(layer, x, hidden)
        torch.testing.assert_close(output, x, atol=1e-4, rtol=1e-4)


def test_a_frames_gates_know_its_clip_and_no_other() -> None:
    net = routed(chain(1), frames=3)
    x = images(6)
    router, means = net[0].gate, x.mean((2, 3))
    for at in range(6):
        clip = range(at // 3 * 3, at // 3 * 3 + 3)
        context = sum(router.temporal[:, 0, near - at + 2] * means[near] for near in clip)
        motion = means[at] - means[at - 1] if at % 3 else torch.zeros(8)
        hidden = (router.fc1.weight @ torch.cat([means[at], context, motion])).relu()
        torch.testing.assert_close(net(x)[at], gated(net[0], x[at], hidden), atol=1e-4, rtol=1e-4)


def test_a_batch_is_whole_clips() -> None:
    net = routed(chain(1), frames=3)
    for count in (1, 4):
        with pytest.raises(DataError, match=rf"KD409: a batch of {count} is not a whole number of clips of 3 frames"):
            net(images(count))


def test_gradients_reach_the_layer_before() -> None:
    net = routed(chain(2))
    net[1](net[0](images()).detach()).sum().backward()
    assert net[0].gate.fc1.weight.grad.abs().sum() > 0
    assert net[0].gate.head.weight.grad is None


def test_layers_of_another_order_have_no_context_and_none_from_the_batch_before() -> None:
    net = routed(Swapped())
    first, second = images().chunk(2)[0], 3 * images().chunk(2)[0]
    alone = copy.deepcopy(net)(second)
    net(first)
    torch.testing.assert_close(net(second), alone)


def test_a_batch_of_another_size_is_no_context() -> None:
    net = routed(chain(2))
    alone = copy.deepcopy(net)[1](images(3))
    net[0](images(2))
    torch.testing.assert_close(net[1](images(3)), alone)


def test_nothing_of_a_batch_is_left_in_the_net_or_a_copy_of_it() -> None:
    net = routed(chain())
    net(images())
    assert all(router.stage.value is None for router in routers(net).values())
    net[0](images())
    for replica in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        stages = {id(router.stage): router.stage for router in routers(replica).values()}
        assert [stage.value for stage in stages.values()] == [None]
    assert net[0].gate.stage.value is not None


def test_a_stage_is_a_run_of_layers_of_one_output_size() -> None:
    sizes = (64, 64, 16, 16, 64)
    layers = [Layer(str(place), "Conv2d", (8, 8, 3, 3), out_positions=size) for place, size in enumerate(sizes)]
    assert [[layer.name for layer in group] for group in Context().groups(layers, nn.Module())] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert all(len(group) == 1 for group in Context(frames=2).groups(layers, nn.Module()))


@pytest.mark.parametrize(
    ("options", "inner"),
    [({}, (4 * 8, 4 * (8 + 4))), ({"width": 6}, (6 * 8, 6 * (8 + 6))), ({"frames": 2}, (4 * 24 + 40, 4 * 24 + 40))],
    ids=str,
)
@pytest.mark.parametrize("taps", [False, True])
def test_the_parameters_are_the_cards(options: dict[str, int], inner: tuple[int, int], taps: bool) -> None:
    net = routed(chain(2), taps=taps, **options)
    width = options.get("width", 4)
    gates = 16 + 9 * taps
    for router, own in zip(routers(net).values(), inner, strict=True):
        assert sum(p.numel() for p in router.parameters()) == own + width * gates + gates
    assert Context(taps=taps, **options).macs([described(net)[1]]) == inner[1] + width * gates


@pytest.mark.parametrize("frames", [1, 2])
def test_an_exported_net_gives_the_same(frames: int) -> None:
    net = routed(chain(), frames=frames)
    with torch.no_grad():
        exported = torch.export.export(net, (images(2),)).module()
        torch.testing.assert_close(exported(images(2)), net(images(2)))


def test_limits_and_codes() -> None:
    for options in ({"frames": 0}, {"reduction": 0}, {"width": 0}):
        with pytest.raises(RecipeError, match=r"KD203: routing context: .* at least 1"):
            Context(**options)
    standardized = Layer("a", "StdConv2d", (8, 8, 3, 3))
    assert Context().can_route(standardized) is None
    assert Context(taps=True).can_route(standardized) == "KD131"
    assert Context(taps=True).can_route(Layer("a", "Linear", (8, 8))) is None
