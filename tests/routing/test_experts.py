"""omni, cond and dyconv: their formulas for one image at a time, their cost, their limits, and shared experts."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.routings import described, learned, static
from torch import Tensor, nn

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.inputs.recipe.resolving import Assignment
from kdna_convert.routing import ROUTINGS, attach, routers
from kdna_convert.routing.experts import principal_deltas
from kdna_convert.stages.plan.routes import form_routes

MIXING = {"omni": {"kernels": 3}, "cond": {"kernels": 3}, "dyconv": {"kernels": 3}}
mixing = pytest.mark.parametrize(("name", "options"), MIXING.items(), ids=list(MIXING))


def one_layer(name: str, layer: nn.Module | None = None, **options: Any) -> tuple[nn.Sequential, Any, Tensor]:
    """A learned net of one routed conv in float64, its router, and five images."""
    torch.manual_seed(0)
    net = nn.Sequential(layer or nn.Conv2d(8, 6, 3, padding=1))
    attach(net, [described("0", net[0])], ROUTINGS[name](**options))
    learned(net).double()
    router = net[0].gate
    if hasattr(router, "temperature"):
        router.temperature.fill_(2.0)
    return net, router, torch.randn(5, 8, 7, 7, dtype=torch.float64)


def kernels_of(layer: Any, base: float = 1.0) -> list[Tensor]:
    """The layer's experts written out."""
    deltas = list(layer.gate.experts.deltas)
    return [base * layer.weight + delta for delta in [*deltas, -sum(deltas)]]


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def test_dyconv_mixes_its_kernels_by_a_softmax() -> None:
    net, router, x = one_layer("dyconv", kernels=3, reduction=2)
    for image, output in zip(x, net(x), strict=True):
        share = linear(linear(image.mean((1, 2)), router.fc1).clamp_min(0), router.fc2).div(2).softmax(0)
        kernel = sum(p * w for p, w in zip(share, kernels_of(net[0]), strict=True))
        torch.testing.assert_close(output, F.conv2d(image[None], kernel, net[0].bias, padding=1)[0])


def test_cond_adds_its_kernels_each_by_a_sigmoid() -> None:
    net, router, x = one_layer("cond", kernels=3)
    for image, output in zip(x, net(x), strict=True):
        switches = linear(image.mean((1, 2)), router.fc).sigmoid()
        kernel = sum(r * w for r, w in zip(switches, kernels_of(net[0], 2 / 3), strict=True))
        torch.testing.assert_close(output, F.conv2d(image[None], kernel, net[0].bias, padding=1)[0])


def test_omni_scales_channels_filters_and_taps_and_mixes_kernels() -> None:
    net, router, x = one_layer("omni", kernels=3)
    for image, output in zip(x, net(x), strict=True):
        attention = linear(linear(image.mean((1, 2)), router.trunk).clamp_min(0), router.heads) / 2
        inputs, outputs, taps, scores = attention.split([8, 6, 9, 3])
        kernel = sum(p * w for p, w in zip(scores.softmax(0), kernels_of(net[0]), strict=True))
        kernel = kernel * 2 * taps.sigmoid().view(3, 3)
        y = F.conv2d((image * 2 * inputs.sigmoid()[:, None, None])[None], kernel, net[0].bias, padding=1)[0]
        torch.testing.assert_close(output, y * 2 * outputs.sigmoid()[:, None, None])


@pytest.mark.parametrize(
    ("name", "options", "params"),
    [
        ("dyconv", {}, 3 * 4608 + 16 * 4 + 5 * 4),  # K P more than P; then c h + (h + 1) K
        ("dyconv", {"kernels": 2, "reduction": 2}, 4608 + 16 * 8 + 9 * 2),
        ("cond", {}, 7 * 4608 + 17 * 8),
        ("omni", {}, 16 * 16 + 17 * (16 + 32)),
        ("omni", {"spatial": True}, 16 * 16 + 17 * (16 + 32 + 9)),
        ("omni", {"kernels": 4}, 3 * 4608 + 16 * 16 + 17 * (16 + 32 + 9 + 4)),
        ("omni", {"kernels": 4, "spatial": False}, 3 * 4608 + 16 * 16 + 17 * (16 + 32 + 4)),
    ],
)
def test_the_parameters_are_those_of_the_papers_without_their_norms(
    name: str, options: dict[str, Any], params: int
) -> None:
    layer = Layer("a", "Conv2d", (32, 16, 3, 3))
    (router,) = ROUTINGS[name](**options).build([layer], [None], [0])
    assert sum(p.numel() for p in router.parameters()) == params


def test_omni_leaves_out_the_attentions_that_a_layer_has_no_place_for() -> None:
    def heads(*shape: int, groups: int = 1, kind: str = "Conv2d") -> tuple[int, ...]:
        return ROUTINGS["omni"](kernels=2).heads(Layer("a", kind, shape, groups))

    assert heads(6, 8, 3, 3) == (8, 6, 9, 2)
    assert heads(6, 8, 1, 1) == (8, 6, 0, 2)
    assert heads(8, 1, 3, 3, groups=8) == (8, 0, 9, 2)
    assert ROUTINGS["omni"](kernels=1).heads(Layer("a", "Conv2d", (6, 8, 3, 3))) == (8, 6, 0, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("omni", {"kernels": 0}, "kernels must be at least 1, got 0"),
        ("omni", {"reduction": 0}, "reduction must be at least 1, got 0"),
        ("omni", {"temperature": 0.5}, "temperature must be at least 1, got 0.5"),
        ("omni", {"temperature": float("inf")}, "temperature must be at least 1, got inf"),
        ("omni", {"experts": "shared"}, "experts: shared needs kernels above 1"),
        ("omni", {"experts": "lent"}, "experts must be own or shared, got 'lent'"),
        ("cond", {"kernels": 1}, "kernels must be at least 2, got 1"),
        ("cond", {"experts": "lent"}, "experts must be own or shared"),
        ("dyconv", {"kernels": 1}, "kernels must be at least 2, got 1"),
        ("dyconv", {"reduction": 0}, "reduction must be at least 1, got 0"),
        ("dyconv", {"temperature": 0}, "temperature must be at least 1, got 0"),
        ("dyconv", {"experts": "lent"}, "experts must be own or shared"),
    ],
)
def test_an_option_outside_its_limits_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"KD203: routing {name}: {message}"):
        ROUTINGS[name](**options)


@mixing
def test_a_kernel_for_every_image_needs_an_ordinary_convolution(name: str, options: dict[str, Any]) -> None:
    routing = ROUTINGS[name](**options)
    assert routing.can_route(Layer("a", "Linear", (4, 8))) == "KD131"
    assert routing.can_route(Layer("a", "ScaledStdConv2d", (4, 8, 3, 3))) == "KD131"
    assert routing.can_route(Layer("a", "Conv2d", (4, 8, 3, 3), reason="KD112")) == "KD113"
    assert ROUTINGS["omni"]().can_route(Layer("a", "ScaledStdConv2d", (4, 8, 3, 3))) is None
    assert ROUTINGS["omni"](spatial=True).can_route(Layer("a", "ScaledStdConv2d", (4, 8, 3, 3))) == "KD131"


def family(name: str, **options: Any) -> tuple[nn.Sequential, Tensor]:
    """Four equal convs and one of another shape, routed with shared experts."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(6, 6, 3, padding=1) for _ in range(4)), nn.Conv2d(6, 4, 3)).eval()
    layers = [described(str(place), layer) for place, layer in enumerate(net)]
    routing = ROUTINGS[name](experts="shared", **options)
    for group in routing.groups(layers, net):
        attach(net, group, routing)
    return net, torch.randn(3, 6, 7, 7)


@mixing
def test_a_family_stores_its_experts_once_and_starts_at_the_identity(name: str, options: dict[str, Any]) -> None:
    net, x = family(name, **options)
    assert set(routers(net)) == {"0", "1", "2", "3"}
    held = [key for key in net.state_dict() if key.endswith("deltas")]
    assert held == ["0.gate.experts.deltas"]
    assert net.state_dict()[held[0]].shape == (2, 6, 6, 3, 3)
    torch.testing.assert_close(net(x), static(net)(x), atol=1e-6, rtol=0)


@mixing
def test_all_layers_of_a_family_teach_its_experts_and_a_copy_has_its_own(name: str, options: dict[str, Any]) -> None:
    net, x = family(name, **options)
    learned(net)
    deltas = net[0].gate.experts.deltas
    net[1:](x).sum().backward()  # without the owner
    assert deltas.grad.abs().sum() > 0
    replica, before = copy.deepcopy(net), net(x)
    with torch.no_grad():
        replica[0].gate.experts.deltas.zero_()
    assert replica[3].gate.experts is replica[0].gate.experts
    assert torch.equal(net(x), before)


def test_shared_experts_start_along_what_tells_the_familys_kernels_apart() -> None:
    net, _ = family("dyconv", kernels=4)
    deltas = net[0].gate.experts.deltas.detach().flatten(1).double()
    rows = torch.stack([net[place].weight.detach().flatten().double() for place in range(4)])
    residuals = rows - rows.mean(0)
    projector = deltas.T @ torch.linalg.pinv(deltas.T)
    torch.testing.assert_close(residuals @ projector, residuals, atol=1e-6, rtol=0)  # 3 directions hold 4 kernels
    torch.testing.assert_close(deltas.norm(dim=1), 0.01 * rows.norm(dim=1).mean().expand(3), rtol=1e-5, atol=0)
    kernels = torch.randn(5, 4, 3, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(principal_deltas(2, kernels), principal_deltas(2, kernels.flip(0)))  # in any order


def test_a_family_with_fewer_layers_than_experts_is_left_out_with_its_reason() -> None:
    net = nn.Sequential(*(nn.Conv2d(6, 6, 3) for _ in range(3)), nn.Conv2d(6, 4, 3))
    layers = [described(str(place), layer) for place, layer in enumerate(net)]

    def routed(kernels: int) -> Any:
        options = {"kernels": kernels, "experts": "shared"}
        assignments = [Assignment(layer.name, "cp", {}, "dyconv", options) for layer in layers]
        return form_routes(net, layers, assignments)

    routes, left = routed(3)
    assert [route.members for route in routes] == [("0", "1", "2")]
    assert left == {"3": "KD133"}
    with pytest.raises(RecipeError, match=r"KD203: the recipe: routing dyconv supports none of 4 layers.*KD133"):
        routed(4)


def test_experts_of_a_kernel_of_zeros_can_still_move() -> None:
    layer = nn.Conv2d(8, 6, 3, padding=1)
    nn.init.zeros_(layer.weight)
    net = nn.Sequential(layer)
    attach(net, [described("0", layer)], ROUTINGS["dyconv"]())
    assert net[0].gate.experts.deltas.abs().sum() > 0
