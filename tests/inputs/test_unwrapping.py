"""Wrappers are taken off, and a net that can never be converted is refused before any work."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from support.small_nets import Small, images, small
from torch import nn
from torch.nn.utils import prune

from kdna_convert.core.errors import ModelError
from kdna_convert.inputs.models import require_usable, unwrapped_copy
from kdna_convert.inputs.models.unwrapping import unwrapped


def with_wrapped_part() -> nn.Module:
    net = small()
    net.body = torch.compile(net.body)
    net.last = nn.DataParallel(net.last)
    return net


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: nn.DataParallel(small()),
        lambda: torch.compile(small()),
        lambda: torch.compile(nn.DataParallel(torch.compile(small()))),
        with_wrapped_part,
    ],
    ids=["DataParallel", "compiled", "both", "parts"],
)
def test_the_net_inside_wrappers_is_found(wrap: Callable[[], nn.Module]) -> None:
    wrapped = wrap()
    kinds = [type(module) for module in wrapped.modules()]
    for net in (unwrapped_copy(wrapped), unwrapped(wrap())):
        assert [type(module) for module in net.modules()] == [type(module) for module in small().modules()]
        assert net.state_dict().keys() == small().state_dict().keys()
        assert torch.equal(net(images()), small()(images()))
    assert [type(module) for module in wrapped.modules()] == kinds, "the caller's net stays as it is"


def normalized() -> nn.Module:
    net = small()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(net.last)
    return net


def pruned() -> nn.Module:
    net = small()
    prune.l1_unstructured(net.last, "weight", 0.5)
    return net


def caching() -> nn.Module:
    net = small()
    net.cache = net.stem.weight * 2
    return net


@pytest.mark.parametrize("build", [normalized, pruned, caching])
def test_a_net_that_keeps_computed_tensors_can_be_copied(build: Callable[[], nn.Module]) -> None:
    net = build()
    require_usable(net, "net")
    for copied in (unwrapped_copy(net), copy.deepcopy(unwrapped(build()))):
        assert torch.equal(copied(images()), net(images()))


def locked() -> nn.Module:
    net = small()
    net.body.lock = threading.Lock()
    return net


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Small()


def lazy() -> nn.Module:
    net = small()
    net.head = nn.LazyLinear(4)
    return net


def exported() -> nn.Module:
    return torch.export.export(small(), (images(),)).module()


def quantized() -> nn.Module:
    return torch.ao.nn.quantized.Conv2d(3, 4, 3)


def with_extra_state() -> nn.Module:
    class Counting(Small):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 1}

    return Counting()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("build", "says"),
    [
        (locked, "body.lock, a lock"),
        (on_meta, "stem.weight has no values"),
        (lazy, "head.weight is not initialized"),
        (exported, "pass the net that was exported"),
        (quantized, "is quantized; convert the float net"),
        (with_extra_state, "holds _extra_state, a dict"),
    ],
)
def test_a_net_that_cannot_be_converted_is_kd302_with_the_way_out(build: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(ModelError, match=f"KD302: net: .*{says}"):
        require_usable(build(), "net")
