"""The partial routing: a share of the filters is dynamic, chosen by images or by norm."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.routings import described, learned, static
from torch import Tensor, nn

from kdna_convert.core.errors import DataError, ModelError, RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.routing import ROUTINGS, attach, routers
from kdna_convert.routing.dynamic_filters import choose_filters, gradient_variance

INNER: dict[str, dict[str, Any]] = {
    "omni": {"name": "omni"},
    "omni of 3": {"name": "omni", "kernels": 3},
    "cond": {"name": "cond", "kernels": 3},
    "dyconv": {"name": "dyconv", "kernels": 3},
}
inner = pytest.mark.parametrize("of", INNER.values(), ids=list(INNER))


def routed(of: dict[str, Any], ratio: float = 0.3) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 10, 3, padding=1))
    attach(net, [described("0", net[0])], ROUTINGS["partial"](of=of, ratio=ratio))
    return net.eval(), torch.randn(4, 8, 6, 6)


@inner
def test_the_dynamic_filters_are_the_other_routings_and_the_rest_are_the_layers(of: dict[str, Any]) -> None:
    net, x = routed(of)
    learned(net)
    index = net[0].gate.index
    assert len(index) == 3  # 0.3 of 10
    rows = nn.Conv2d(8, 3, 3, padding=1)
    rows.weight, rows.bias = nn.Parameter(net[0].weight[index]), nn.Parameter(net[0].bias[index])
    whole = nn.Sequential(rows)
    attach(whole, [described("0", rows)], ROUTINGS[of["name"]](**{k: v for k, v in of.items() if k != "name"}))
    rows.gate.load_state_dict(net[0].gate.whole.state_dict())
    expected = static(net)(x).index_copy(1, index, whole(x))
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(net(x), static(net)(x), atol=1e-2)


def test_only_dynamic_filters_have_experts() -> None:
    net, _ = routed(INNER["dyconv"])
    assert net[0].gate.whole.experts.deltas.shape == (2, 3, 8, 3, 3)
    full, _ = routed(INNER["dyconv"], ratio=1.0)
    assert full[0].gate.whole.experts.deltas.shape == (2, 10, 8, 3, 3)
    one, _ = routed(INNER["dyconv"], ratio=1e-9)
    assert len(one[0].gate.index) == 1


def test_shared_experts_can_be_partial() -> None:
    net = nn.Sequential(*(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))).eval()
    layers = [described(str(place), layer) for place, layer in enumerate(net)]
    routing = ROUTINGS["partial"](of={"name": "dyconv", "kernels": 3, "experts": "shared"}, ratio=0.5)
    (group,) = routing.groups(layers, net)
    attach(net, group, routing)
    held = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items() if key.endswith("deltas")}
    assert held == {"0.gate.whole.experts.deltas": (2, 3, 6, 3, 3)}
    x = torch.randn(2, 6, 7, 7)
    torch.testing.assert_close(net(x), static(net)(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"ratio": 0.0}, "KD203", "ratio must be above 0 and at most 1, got 0"),
        ({"ratio": 1.1}, "KD203", "ratio must be above 0 and at most 1, got 1.1"),
        ({"ratio": float("nan")}, "KD203", "ratio must be above 0 and at most 1, got nan"),
        ({"of": {"name": "se"}}, "KD203", "`of` must name one of omni, cond, dyconv, got 'se'"),
        ({"of": {}}, "KD203", "`of` must name one of omni, cond, dyconv, got None"),
        ({"of": {"name": "cond", "depth": 3}}, "KD202", "cond has no option 'depth'; it has kernels, experts"),
        ({"of": {"name": "cond", "kernels": "many"}}, "KD203", "of cond: kernels: .*got 'many'"),
        ({"of": {"name": "cond", "kernels": 1}}, "KD203", "kernels must be at least 2, got 1"),
    ],
)
def test_an_option_outside_its_limits_is_refused(options: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"{code}: routing .*{message}"):
        ROUTINGS["partial"](**options)


def test_a_layer_in_groups_or_without_patches_is_left_out() -> None:
    routing = ROUTINGS["partial"]()
    assert routing.can_route(Layer("a", "Conv2d", (8, 4, 3, 3), groups=2)) == "KD132"
    assert routing.can_route(Layer("a", "Linear", (8, 4))) == "KD131"
    assert routing.can_route(Layer("a", "Conv2d", (8, 4, 3, 3))) is None


def test_without_images_the_filters_of_the_largest_norm_are_dynamic() -> None:
    layer = nn.Conv2d(8, 6, 3)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([1.0, 5.0, 1.0, 9.0, 1.0, 7.0]).view(-1, 1, 1, 1))
    net = nn.Sequential(layer)
    attach(net, [described("0", layer)], ROUTINGS["partial"](ratio=0.5))
    assert net[0].gate.index.tolist() == [1, 3, 5]


def classifier() -> tuple[nn.Sequential, Tensor]:
    """Two partial convs, a norm and a head; of the second conv's filters, the head looks at 2 and 5 alone."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    with torch.no_grad():
        net[6].weight[:, [0, 1, 3, 4]] = 0
        net[6].weight.mul_(10)
    for name in ("0", "3"):
        attach(net, [described(name, net.get_submodule(name))], ROUTINGS["partial"](of=INNER["dyconv"]))
    return net.train(), torch.randn(12, 3, 6, 6)


def test_images_choose_the_filters_whose_gradients_differ_most() -> None:
    net, x = classifier()
    bare = static(net).eval()
    before = net.eval()(x)
    net.train()
    scores = choose_filters(net, x.split(5))
    assert net[3].gate.index.tolist() == [2, 5]
    assert scores["3"][[0, 1, 3, 4]].abs().max() < 1e-12
    assert net.training
    assert net[3].gate.training
    assert all(parameter.grad is None for parameter in net.parameters())
    torch.testing.assert_close(net.eval()(x), before)
    torch.testing.assert_close(before, bare(x), atol=1e-6, rtol=1e-5)


def test_a_score_is_the_variance_of_the_gradients_of_single_images() -> None:
    net, x = classifier()
    scores = gradient_variance(net, ["0", "3"], [x])
    bare = static(net).eval()
    logits = bare(x) / 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(0)).squeeze(1)
    for name in ("0", "3"):
        weight = bare.get_submodule(name).weight
        losses = [F.cross_entropy(bare(image[None]) / 2, label[None]) for image, label in zip(x, labels, strict=True)]
        each = torch.stack([torch.autograd.grad(loss, weight)[0] for loss in losses]).double()
        expected = (each - each.mean(0)).square().mean(0).flatten(1).sum(1)
        torch.testing.assert_close(scores[name], expected, rtol=1e-4, atol=1e-9)


def test_filters_in_use_no_image_and_no_logits_are_refused() -> None:
    net, x = classifier()
    gate = net[3].gate
    with pytest.raises(DataError, match="KD405"):
        choose_filters(net, [])
    with pytest.raises(ModelError, match="KD308"):
        choose_filters(net[:5], [x])
    assert net[3].gate is gate
    learned(net)
    with pytest.raises(ValueError, match="0: its router has been trained"):
        choose_filters(net, [x])
    assert len(routers(net)) == 2
