"""Freezing a routed net: every routed layer gets the mean of its kernels over images."""

import copy
from typing import Any

import pytest
import torch
from support.routings import learned, placed, routed
from support.small_nets import convert, images, route, small
from torch import nn

from kdna_convert.api.convert import convert as convert_net
from kdna_convert.api.freeze import freeze, frozen
from kdna_convert.core.errors import DataError, NumericsError, PlanError
from kdna_convert.core.specs import Layer, ModelRef, Plan, Route, Totals
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.network.derive import derived_layers, fold
from kdna_convert.routing import attach, mean_kernels, routers

IMAGES = images(24, seed=0)


def plan_of(net: nn.Module, routing: str) -> Plan:
    layers = tuple(
        Layer(name, "", tuple(layer.weight.shape) if hasattr(layer, "weight") else (1, 1))
        for name, layer in net.named_modules()
        if name in routers(net)
    )
    totals = Totals(1, 1, 1)
    return Plan(ModelRef("net"), (), (), totals, totals, routes=(Route(routing, layers),))


@placed
def test_a_net_frozen_on_one_image_gives_the_same_output_for_it(routing: Any, kind: str) -> None:
    net, x = routed(kind, routing)
    learned(net).eval()
    image = x[:1]
    before = net(image)
    still = frozen(copy.deepcopy(net), plan_of(net, routing.name), [image]).eval()
    assert not routers(still)
    output = still(image)
    if routing.name == "dymn" or getattr(routing, "input_bands", False):
        # No kernel is an activation or a transformed input: a scale of each channel is what is left of them.
        assert (output - before).square().sum() < before.square().sum()
    else:
        torch.testing.assert_close(output, before, atol=1e-4, rtol=1e-4)
    assert routers(net)


def test_the_mean_kernel_does_not_depend_on_the_batch_size() -> None:
    from kdna_convert.routing import ROUTINGS

    net, x = routed("grouped", ROUTINGS["se"](), batch=7)
    plan = plan_of(learned(net).eval(), "se")
    whole, parts = mean_kernels(net, plan.routes, [x]), mean_kernels(net, plan.routes, x.split(3))
    each = [mean_kernels(net, plan.routes, [image[None]])["0.one"].kernel for image in x]
    torch.testing.assert_close(whole["0.one"].kernel, torch.stack(each).mean(0))
    torch.testing.assert_close(whole["0.one"].kernel, parts["0.one"].kernel)


def test_derived_layers_become_ordinary_ones_when_frozen() -> None:
    net = small().eval()
    convert(net)
    folded = fold(copy.deepcopy(net))
    routes = route(net, "se")
    totals = Totals(1, 1, 1)
    plan = Plan(ModelRef("net"), (), (), totals, totals, routes=routes)
    still = frozen(net, plan, [torch.randn(4, 3, 12, 12)])
    assert not derived_layers(still)
    assert list(still.state_dict()) == list(folded.state_dict())
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(still(x), folded(x), atol=1e-5, rtol=1e-4)  # an untrained routing has nothing to lose


def test_a_mean_that_is_not_finite_names_its_layer() -> None:
    net = small().eval()
    routes = route(net, "se")
    with torch.no_grad():
        net.last.gate.fc2.bias.fill_(float("nan"))
    with pytest.raises(NumericsError, match="KD702: last"):
        mean_kernels(net, routes, [torch.randn(2, 3, 12, 12)])


def test_a_folder_without_routing_or_without_images_is_refused() -> None:
    net = small()
    conversion = convert_net(net, recipe=parse_recipe("scheme: dense"), data=IMAGES, inputs={"input_size": (3, 12, 12)})
    with pytest.raises(PlanError, match="KD503: the net has no routing to freeze"):
        freeze(conversion, data=IMAGES)
    recipe = parse_recipe("scheme: dense\nrouting: se\ncalibration: {images: 12, heldout: 8, batch: 4}")
    conversion = convert_net(net, recipe=recipe, data=IMAGES, inputs={"input_size": (3, 12, 12)})
    with pytest.raises(DataError, match="KD401: a mean is taken over images"):
        freeze(conversion)
    still, report = freeze(conversion, data=IMAGES)
    assert still.plan.routes == still.plan.families == ()
    assert still.plan.planned.params == sum(p.numel() for p in net.parameters())
    assert report.from_routed is not None
    assert report.from_routed.agreement == 1
    assert report.images == 12


def test_a_frozen_net_can_be_routed_again() -> None:
    from kdna_convert.routing import ROUTINGS

    net, x = routed("conv2d", ROUTINGS["se"]())
    still = frozen(net, plan_of(net, "se"), [x])
    attach(still, [Layer("0.one", "Conv2d", tuple(still[0].one.weight.shape))], ROUTINGS["se"]())
    assert list(routers(still)) == ["0.one"]
