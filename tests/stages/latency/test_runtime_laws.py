"""The laws that every runtime obeys, on layers of every kind."""

from typing import Any

import pytest
import torch
from support.small_nets import images, small
from torch import Tensor, nn

from kdna_convert.core.errors import ModelError
from kdna_convert.core.specs import Shape
from kdna_convert.stages.latency import RUNTIMES, Runtime
from kdna_convert.stages.latency.layer_form import LayerForm, chain_form, dense_form
from kdna_convert.stages.latency.runtime import nanoseconds
from kdna_convert.stages.latency.torch_runtime import TorchRuntime

# A layer and the shape of its input.
LAYERS: dict[str, tuple[nn.Module, Shape]] = {
    "conv": (nn.Conv2d(6, 8, 3, padding=1), (2, 6, 9, 9)),
    "stride, padding and dilation": (nn.Conv2d(6, 8, (3, 5), (2, 1), (1, 4), (1, 2)), (1, 6, 10, 12)),
    "same padding": (nn.Conv2d(6, 8, (3, 5), padding="same"), (1, 6, 9, 9)),
    "no padding": (nn.Conv2d(6, 8, 3, padding="valid"), (1, 6, 9, 9)),
    "groups": (nn.Conv2d(6, 6, 3, groups=6), (1, 6, 9, 9)),
    "sounds": (nn.Conv1d(4, 6, 9, stride=3, padding=2), (1, 4, 40)),
    "volumes": (nn.Conv3d(2, 4, 3, padding=1), (1, 2, 5, 6, 7)),
    "linear": (nn.Linear(7, 5), (3, 7)),
}


class Boxes(nn.Module):
    """A detector."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        empty = {"boxes": x.new_zeros(0, 4), "labels": x.new_zeros(0, dtype=torch.long), "scores": x.new_zeros(0)}
        return [empty for _ in x]


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found = RUNTIMES[request.param]
    for library in found.needs:
        pytest.importorskip(library)
    return found


def shape_of(returned: Any) -> Shape:
    """The shape of the one output, as each of the runtimes returns it."""
    first = returned if isinstance(returned, Tensor) else returned[0]
    return tuple(first.shape)


def outputs(layer: nn.Module, size: Shape) -> Shape:
    with torch.no_grad():
        return tuple(layer(torch.zeros(size)).shape)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_timed_layer_returns_what_the_layer_does(runtime: Runtime, kind: str) -> None:
    layer, size = LAYERS[kind]
    for dtype in runtime.dtypes:
        run = runtime.load_layer(dense_form(layer, size), 1, dtype)
        assert shape_of(run()) == outputs(layer, size)


def test_a_timed_chain_returns_what_the_layer_does(runtime: Runtime) -> None:
    layer, size = LAYERS["stride, padding and dilation"]
    three = [torch.empty(5, 6, 1, 1), torch.empty(5, 1, 3, 5), torch.empty(8, 5, 1, 1)]
    two = [torch.empty(4, 6, 3, 5), torch.empty(8, 4, 1, 1)]
    for kernels in (three, two):
        form = chain_form(dense_form(layer, size), kernels)
        for dtype in runtime.dtypes:
            assert shape_of(runtime.load_layer(form, 1, dtype)()) == outputs(layer, size)


def test_a_net_runs_on_its_example(runtime: Runtime) -> None:
    assert shape_of(runtime.load_net(small(), images(), 1)()) == (2, 4)


def test_a_net_without_a_graph_is_refused_with_a_way_out(runtime: Runtime) -> None:
    if isinstance(runtime, TorchRuntime):
        pytest.skip("torch runs every net")
    with pytest.raises(ModelError, match=f"KD312: {runtime.name} cannot run the net: .*use --runtime torch"):
        runtime.load_net(Boxes(), images(), 1)


def test_a_runtime_says_its_version(runtime: Runtime) -> None:
    assert runtime.version()


def test_the_larger_layer_takes_longer(runtime: Runtime) -> None:
    def time(channels: int) -> int:
        layer = nn.Conv2d(channels, channels, 3, padding=1)
        return nanoseconds(runtime.load_layer(dense_form(layer, (1, channels, 32, 32)), 1, "fp32"))

    assert time(128) > time(8)


def test_layers_of_one_form_have_one_key() -> None:
    one, other = (dense_form(nn.Conv2d(3, 4, 3, padding=1, bias=bias), (1, 3, 8, 8)) for bias in (True, False))
    assert one == other
    assert one.key == {
        "kernels": [[4, 3, 3, 3]],
        "input": [1, 3, 8, 8],
        "stride": [1, 1],
        "pads": [1, 1, 1, 1],
        "dilation": [1, 1],
    }
    assert isinstance(one, LayerForm)
