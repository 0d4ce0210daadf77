"""The warehouse routing: its formula, its published groups and counts, and the kernels it mixes."""

import copy
from typing import Any

import pytest
import torch
from support.routings import described, learned, static
from support.small_nets import MEMBERS, OPTIONS, fitted, images, small
from torch import Tensor, nn
from torchvision.models import resnet18

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.specs import Family, Layer
from kdna_convert.network.derive import derive, derived_layers
from kdna_convert.routing import attach, routers
from kdna_convert.routing.heads import pooled
from kdna_convert.routing.warehouse import WarehouseRouting
from kdna_convert.stages.analyze.survey import survey


class Stage(nn.Module):
    """Three kernels of one stage: 4 x 4 channels, twice that with a stride, and 1x1 beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.short = nn.Conv2d(4, 8, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(x).relu()
        return self.down(x) + self.short(x)


def stage(**options: Any) -> tuple[Stage, Tensor]:
    torch.manual_seed(0)
    net = Stage().eval()
    x = torch.randn(3, 4, 6, 6)
    (group,) = WarehouseRouting(**options).groups(survey(net, x), net)
    return attach(net, group, WarehouseRouting(**options)), x


@pytest.mark.parametrize("budget", [1, 2])
def test_every_cell_is_itself_and_a_competing_mixing_of_its_stages(budget: int) -> None:
    net, x = stage(budget=budget)
    learned(net)
    layers = [net.same, net.down, net.short]
    cells = [
        layer.weight[4 * block : 4 * block + 4, :, row, column]
        for layer in layers
        for block in range(len(layer.weight) // 4)
        for row in range(layer.kernel_size[0])
        for column in range(layer.kernel_size[0])
    ]
    assert len(cells) == 9 + 18 + 2
    cells += list(net.same.gate.cells) if budget > 1 else []
    gate, rows = net.down.gate, range(9, 27)
    hidden = torch.relu(gate.fc1(pooled(x, 2)))
    z = gate.fc2(hidden).detach().view(3, 18, -1)
    assert z.shape[2] == len(cells) + 1
    expected = torch.zeros(3, 8, 4, 3, 3)
    for image in range(3):
        for i, row in enumerate(rows):
            norm = 1 + sum(abs(float(value)) for value in z[image, i])
            mixed = cells[row] + gate.gamma[i] * sum(z[image, i, j] / norm * cell for j, cell in enumerate(cells))
            block, tap = divmod(i, 9)
            expected[image, 4 * block : 4 * block + 4, :, tap // 3, tap % 3] = mixed
    kernels = gate(x, net.down.weight).kernel_of(net.down.weight)
    torch.testing.assert_close(kernels, expected, atol=1e-5, rtol=1e-4)


def test_more_cells_are_stored_once() -> None:
    net, _ = stage(budget=4)
    assert [name for name, _ in net.named_parameters() if name.endswith("cells")] == ["same.gate.cells"]
    assert net.same.gate.cells.shape == (3 * 29, 4, 4)
    assert all(router.owner is net.same.gate for router in routers(net).values())


# Published: parameters of a ResNet18 by budget, in millions, and the cells of its four stages at budget 1.
@pytest.mark.parametrize(("budget", "millions"), [(1, 11.93), (2, 23.24), (4, 45.86)])
def test_a_resnet18_has_the_published_groups_and_parameters(budget: int, millions: float) -> None:
    net = resnet18()
    layers = [layer for layer in survey(net, torch.zeros(1, 3, 64, 64)) if "layer" in layer.name]
    routing = WarehouseRouting(budget=budget)
    groups = routing.groups(layers, net)
    assert [sum(layer.params for layer in group) // group[0].shape[0] ** 2 for group in groups] == [56, 47, 47, 27]
    assert "layer2.0.downsample.0" in {layer.name for layer in groups[0]}
    total = sum(parameter.numel() for parameter in net.parameters())
    for group in groups:
        built = routing.build(group, [torch.empty(one.shape, device="meta") for one in group], [0] * len(group))
        total += sum(parameter.numel() for router in built for parameter in router.parameters())
        for router in built:  # a batch norm's scale and shift there is a bias here; gamma is ours
            total += len(router.fc1.bias) - len(router.gamma)
    assert round(total / 1e6, 2) == millions


def test_multiply_adds_are_those_of_attention_and_mixing() -> None:
    net, x = stage()
    layers = survey(static(net), x)
    attention = sum(16 * (4 + rows * 30) for rows in (9, 18, 2))
    mixing = 29 * 29 * 16
    assert WarehouseRouting().macs(layers) == attention + mixing


def test_a_layer_joins_where_its_channels_are_multiples_of_the_stages_smallest() -> None:
    def layer(name: str, *shape: int, positions: int = 64, groups: int = 1) -> Layer:
        return Layer(name, "Conv2d", shape, groups, in_positions=positions)

    layers = [
        layer("stem", 16, 3, 3, 3),
        layer("a", 16, 16, 3, 3),
        layer("b", 32, 16, 3, 3),
        layer("depthwise", 16, 1, 3, 3, groups=16),
        layer("alone", 24, 24, 1, 1),
        layer("later", 32, 32, 3, 3, positions=16),
        layer("line", 32, 32, 3),
    ]
    groups = WarehouseRouting().groups(layers, nn.Identity())
    names = [[one.name for one in group] for group in groups]
    assert names == [["stem"], ["a", "b"], ["depthwise"], ["later"], ["line"]]
    assert "alone" in {one.name for group in WarehouseRouting(budget=2).groups(layers, nn.Identity()) for one in group}


def test_cells_are_the_kernels_as_they_are_at_that_moment() -> None:
    net, x = stage()
    learned(net)
    other = copy.deepcopy(net)
    before = net.same(x)
    with torch.no_grad():
        other.short.weight.add_(1)
    assert torch.equal(net.same(x), before)
    assert not torch.allclose(other.same(x), before, atol=1e-3)
    net.same(x).sum().backward()
    assert net.short.weight.grad.abs().sum() > 0
    assert not any("members" in key for key in net.state_dict())


def test_below_budget_1_a_schemes_kernels_are_mixed_exact_at_the_start() -> None:
    net, x = small(), images(4)
    family = Family("warehouse", MEMBERS, OPTIONS["warehouse"])
    derive(net, family, *fitted(net, family))
    expected = net(x)
    layers = [described(name, net.get_submodule(name)) for name in MEMBERS]
    (group,) = WarehouseRouting().groups(layers, net)
    count = len(list(net.parameters()))
    attach(net, group, WarehouseRouting())
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=0)
    assert len(list(net.parameters())) == count + 5 * len(MEMBERS)
    learned(net)
    bank = derived_layers(net)[MEMBERS[0]].shared["E"]
    net.zero_grad()
    net.get_submodule(MEMBERS[1])(torch.randn(2, 6, 8, 8)).sum().backward()
    assert bank.grad.abs().sum() > 0


def test_options_have_limits_and_a_way_out() -> None:
    for budget in (3, 0, 8, 1.5):
        with pytest.raises(RecipeError, match="KD203: routing warehouse: budget must be 1, 2 or 4"):
            WarehouseRouting(budget=budget)
    with pytest.raises(RecipeError, match=r"KD203: .*got 0.25; below 1 it is a scheme's \(`scheme: warehouse`\)"):
        WarehouseRouting(budget=0.25)
    with pytest.raises(RecipeError, match="KD203: routing warehouse: reduction must be at least 1"):
        WarehouseRouting(reduction=0)


@pytest.mark.parametrize(
    ("kind", "reason", "code"),
    [
        ("Conv2d", None, None),
        ("Conv2dSame", None, None),
        ("Linear", None, "KD131"),
        ("StdConv2d", None, "KD131"),
        ("ConvTranspose2d", "KD104", "KD113"),
    ],
)
def test_only_what_can_be_run_with_a_kernel_an_image_is_routed(kind: str, reason: str | None, code: str | None) -> None:
    assert WarehouseRouting().can_route(Layer("a", kind, (4, 4, 3, 3), reason=reason)) == code
