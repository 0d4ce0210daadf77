"""The laws that every routing obeys: the identity at step 0, trainable, exact in cost, safe to copy, save and cast."""

import copy
import io
import pickle
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest
import torch
from support.routings import Twice, described, groups, learned, placed, placed_at, routed, routings, static, takes
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdna_convert.core.errors import ModelError, PlanError, RecipeError
from kdna_convert.core.specs import Layer, Route
from kdna_convert.routing import ROUTINGS, attach, attach_routes, convolution, detach, routers, routing_of
from kdna_convert.stages.plan.routes import gate_specs


@placed
def test_at_step_0_the_output_is_the_static_layers(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    net, x = net.eval(), 3 * x
    torch.testing.assert_close(net(x), static(net)(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(net(x[0]), static(net)(x[0]), atol=1e-5, rtol=0)  # unbatched
    assert all(router.is_identity() for router in routers(net).values())
    assert not any(router.is_identity() for router in routers(learned(net)).values())
    assert not torch.allclose(net(x), static(net)(x), atol=1e-3)


@placed
def test_gradients_reach_every_parameter_within_a_few_steps_of_one_image_each(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing, batch=20)
    net.train()
    own = {name: p for name, p in net.named_parameters() if ".gate." in name}
    reached = set()
    optimizer = torch.optim.SGD(own.values(), lr=0.01)
    for image in x:
        optimizer.zero_grad()
        net(image[None]).square().sum().backward()
        reached |= {name for name, p in own.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert reached == set(own)
    assert not any(router.is_identity() for router in routers(net).values())


@placed
def test_what_is_stored_is_known_before_it_is_built(routing: Any, kind: str) -> None:
    net, _ = routed(kind, routing)
    bare = static(net)
    routes = [Route(routing.name, group, asdict(routing)) for group in groups(routing, bare)]
    specs, params = gate_specs(bare, routes)
    stored = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items() if ".gate." in key}
    assert {spec.name: spec.shape for spec in specs} == stored
    assert params == sum(p.numel() for name, p in net.named_parameters() if ".gate." in name)
    assert all(routing.macs(route.layers) >= 0 for route in routes)


@placed
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_finite(routing: Any, kind: str, dtype: torch.dtype) -> None:
    net, x = routed(kind, routing)
    learned(net)
    with torch.autocast("cpu", dtype=dtype):
        y = net(100 * x)
    assert y.isfinite().all()
    y.float().abs().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.to(dtype)(x.to(dtype)).dtype == dtype


@placed
def test_every_image_is_routed_by_itself(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    learned(net).eval()
    torch.testing.assert_close(net(x), torch.cat([net(image[None]) for image in x]), atol=1e-4, rtol=1e-4)


@placed
def test_every_form_gives_the_same(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    expected = learned(net).eval()(x)
    for name, router in routers(net).items():
        router.form = "static"
        if hasattr(net.get_submodule(name), "weight"):
            router.precompute(net.get_submodule(name).weight)
    torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=1e-4)


def test_kernels_that_are_large_beside_the_images_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    x, kernels = torch.randn(3, 16, 2, 2), torch.randn(3, 16, 16, 3, 3)
    ran, patches = [], convolution.by_patches
    monkeypatch.setattr(convolution, "by_patches", lambda *given: ran.append(1) or patches(*given))
    expected = convolution.per_sample(layer, x, kernels)
    assert not ran
    monkeypatch.setattr(convolution, "_LARGE", 0)
    torch.testing.assert_close(convolution.per_sample(layer, x, kernels), expected, atol=1e-4, rtol=1e-4)
    assert ran


SMALL_KERNELS = {count: partial(nn.Conv2d, 8, 6, 3, groups=count, bias=False) for count in (1, 2)}


@pytest.mark.parametrize(
    ("routing", "count"),
    [
        pytest.param(kind(), count, id=f"{name}-{count}")
        for name, kind in ROUTINGS.items()
        for count, make in SMALL_KERNELS.items()
        if takes(kind(), make)
    ],
)
def test_scales_that_go_into_small_kernels_scale_the_same(
    routing: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Twice(*(SMALL_KERNELS[count]() for _ in range(2))))
    for group in groups(routing, net):
        attach(net, group, routing)
    learned(net).eval()
    x = torch.randn(3, 8, 40, 40)
    ran = []
    scaled = convolution.scale_channels
    monkeypatch.setattr(convolution, "scale_channels", lambda *given: ran.append(1) or scaled(*given))
    expected = net(x)
    assert not ran
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=1e-4)
    assert bool(ran) == (routing.name in ("se", "context", "omni", "frequency"))


def test_a_derived_kernel_is_worked_out_for_the_router_and_for_the_layer_and_no_more() -> None:
    net, x = routed("conv2d", ROUTINGS["se"]())

    class Counted(nn.Module):
        times = 0

        def forward(self, weight: Tensor) -> Tensor:
            self.times += 1
            return 1 * weight

    counted = Counted()
    parametrize.register_parametrization(net[0].one, "weight", counted)
    learned(net)[0].one(x)
    counted.times = 0
    net[0].one(x)
    assert counted.times == 2


@placed
def test_a_copy_is_routed_by_its_own_routers(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    net.eval()
    before = net(x)
    for replica in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        learned(replica)
        assert not torch.allclose(replica(x), before)
        torch.testing.assert_close(net(x), before)


@placed
def test_a_router_travels_in_the_state_dict(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    other, _ = routed(kind, routing, seed=9)
    file = io.BytesIO()
    torch.save(learned(net).state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other.eval()(x), net.eval()(x))
    assert all(".gate." in key or key.endswith((".weight", ".bias")) for key in net.state_dict())


@placed
def test_a_net_without_numbers_can_be_routed_and_filled(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    other = static(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(float("nan"))
    attach_routes(other, [Route(routing.name, group, asdict(routing)) for group in groups(routing, other)])
    other.load_state_dict(learned(net).state_dict(), strict=True)
    assert torch.equal(other.eval()(x), net.eval()(x))


@placed_at("conv2d")
def test_the_memory_format_is_kept(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    x = x.to(memory_format=torch.channels_last)
    assert static(net)[0].one(x).is_contiguous(memory_format=torch.channels_last)
    assert learned(net)[0].one(x).is_contiguous(memory_format=torch.channels_last)


@placed
def test_a_router_depends_on_seed_and_name_only_and_draws_no_global_numbers(routing: Any, kind: str) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        net, _ = routed(kind, routing, seed=seed)
        return {name: p.detach() for name, p in net.named_parameters() if ".gate." in name}

    one, same, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    nothing_drawn = routing.name == "cond" and routing.experts == "shared"  # directions of the kernels, and zeros
    assert any(not torch.equal(one[name], other[name]) for name in one) != nothing_drawn

    net = static(routed(kind, routing)[0])
    routes = [Route(routing.name, group, asdict(routing)) for group in groups(routing, net)]
    state = torch.get_rng_state()
    attach_routes(net, routes)
    assert torch.equal(torch.get_rng_state(), state)


@placed
def test_detaching_leaves_the_layer_as_it_was(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    expected = static(net)(x)
    learned(net)
    for name in list(routers(net)):
        assert detach(net.get_submodule(name)) is not None
        assert detach(net.get_submodule(name)) is None
    assert not any(".gate." in key for key in net.state_dict())
    assert torch.equal(net(x), expected)
    assert not routers(net)


def test_a_layer_with_a_gate_of_its_own_is_refused() -> None:
    net, _ = routed("conv2d", ROUTINGS["se"]())
    with pytest.raises(ModelError, match=r"KD113: 0.one: .*gate"):
        attach(net, [described("0.one", net[0].one)], ROUTINGS["se"]())
    with pytest.raises(PlanError, match=r"KD503: .*no layer '0.three'"):
        attach(net, [Layer("0.three", "Conv2d", (4, 8, 3, 3))], ROUTINGS["se"]())


def test_a_route_of_an_unknown_routing_or_option_is_refused() -> None:
    layer = Layer("a", "Conv2d", (4, 8, 3, 3))
    with pytest.raises(PlanError, match=r"KD503: .*no routing 'maze'; it has .*se"):
        routing_of(Route("maze", (layer,)))
    with pytest.raises(PlanError, match="KD503: route of a: routing se: "):
        routing_of(Route("se", (layer,), {"depth": 3}))


@routings
def test_layers_that_are_never_called_cannot_be_routed(routing: Any) -> None:
    assert routing.can_route(Layer("a", "Linear", (4, 8), reason="KD107")) == "KD113"


def test_the_width_of_se_is_a_share_of_the_channels_or_given() -> None:
    def shapes(layer: Layer, **options: int) -> dict[str, tuple[int, ...]]:
        (router,) = ROUTINGS["se"](**options).build([layer], [None], [0])
        return {name: tuple(tensor.shape) for name, tensor in router.state_dict().items()}

    layer = Layer("a", "Conv2d", (4, 8, 3, 3))
    assert shapes(Layer("a", "Conv2d", (4, 8, 3, 3), groups=2))["fc1.weight"] == (4, 16)
    assert shapes(layer, reduction=64)["fc1.weight"] == (1, 8)
    assert shapes(layer, width=16)["fc2.weight"] == (8, 16)
    for options in ({"reduction": 0}, {"width": 0}):
        with pytest.raises(RecipeError, match=r"KD203: routing se: .* at least 1"):
            ROUTINGS["se"](**options)
