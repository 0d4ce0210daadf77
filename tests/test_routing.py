"""The laws every routing obeys: the identity at step 0, trainable, exact in cost, safe to copy, save and cast."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.errors import ModelError, RecipeError
from kdna_convert.routing import ROUTINGS, attach, detach, gates
from kdna_convert.specs import Layer

routings = pytest.mark.parametrize("routing", [kind() for kind in ROUTINGS.values()], ids=list(ROUTINGS))
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(8, 4, 3), (8, 9)),
    "conv2d": (lambda: nn.Conv2d(8, 4, 3), (8, 9, 7)),
    "conv3d": (lambda: nn.Conv3d(8, 4, 3), (8, 5, 4, 6)),
    "grouped": (lambda: nn.Conv2d(8, 4, 3, groups=4), (8, 9, 7)),
    "linear": (lambda: nn.Linear(8, 4), (8,)),
    "tokens": (lambda: nn.Linear(8, 4), (5, 8)),
    "channels last": (lambda: nn.Linear(8, 4), (6, 5, 8)),
}
layers = pytest.mark.parametrize("kind", LAYERS)


def routed(kind: str, routing: object, batch: int = 3) -> tuple[nn.Sequential, Tensor]:
    make, size = LAYERS[kind]
    torch.manual_seed(0)
    net = nn.Sequential(make())
    return attach(net, "0", routing, seed=0), torch.randn(batch, *size)


def learned(net: nn.Sequential) -> nn.Sequential:
    """The same net with a gate away from the identity."""
    with torch.no_grad():
        for parameter in net[0].gate.parameters():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    return net


@routings
@layers
def test_at_step_0_the_output_is_the_static_layers(routing: object, kind: str) -> None:
    net, x = routed(kind, routing)
    static = copy.deepcopy(net)
    detach(static[0])
    torch.testing.assert_close(net(x), static(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(net(x[0]), static(x[0]), atol=1e-5, rtol=0)  # unbatched
    assert net[0].gate.is_identity()
    assert not learned(net)[0].gate.is_identity()


@routings
@layers
def test_gradients_reach_every_parameter_within_two_steps_even_of_one_image(routing: object, kind: str) -> None:
    net, x = routed(kind, routing, batch=1)
    net.train()
    gate, reached = net[0].gate, set()
    optimiser = torch.optim.SGD(gate.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        net(x).square().sum().backward()
        reached |= {name for name, p in gate.named_parameters() if p.grad.abs().sum() > 0}
        optimiser.step()
    assert reached == {name for name, _ in gate.named_parameters()}
    assert not gate.is_identity()


@routings
@layers
def test_the_cost_is_exact_before_building(routing: object, kind: str) -> None:
    net, _ = routed(kind, routing)
    stored = {name: tuple(tensor.shape) for name, tensor in net[0].gate.state_dict().items()}
    layer = net[0]
    assert routing.tensors(tuple(layer.weight.shape), getattr(layer, "groups", 1)) == stored
    matrices = sum(p.numel() for p in net[0].gate.parameters() if p.ndim > 1)
    assert routing.macs(tuple(layer.weight.shape), getattr(layer, "groups", 1)) == matrices


@routings
@layers
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_finite(routing: object, kind: str, dtype: torch.dtype) -> None:
    net, x = routed(kind, routing)
    learned(net)
    with torch.autocast("cpu", dtype=dtype):
        y = net(1000 * x)
    assert y.isfinite().all()
    y.float().abs().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert net.to(dtype)(x.to(dtype)).dtype == dtype


@routings
def test_a_gate_differs_from_image_to_image(routing: object) -> None:
    net, x = routed("conv2d", routing)
    together = learned(net)(x)
    torch.testing.assert_close(together, torch.cat([net(image[None]) for image in x]), atol=1e-5, rtol=1e-5)
    gated = net[0].gate(x) / x
    assert not torch.allclose(gated[0], gated[1])
    assert torch.allclose(gated[0], gated[0, :, :1, :1].expand_as(gated[0]), atol=1e-4)


@routings
def test_a_copy_gates_by_its_own_gate(routing: object) -> None:
    net, x = routed("conv2d", routing)
    before = net(x)
    for replica in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        learned(replica)
        assert not torch.allclose(replica(x), before)
        torch.testing.assert_close(net(x), before)


@routings
def test_a_gate_travels_in_the_state_dict(routing: object) -> None:
    net, x = routed("conv2d", routing)
    other, _ = routed("conv2d", routing)
    file = io.BytesIO()
    torch.save(learned(net).state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    torch.testing.assert_close(other(x), net(x))
    assert all(key.startswith(("0.gate.", "0.weight", "0.bias")) for key in net.state_dict())


@routings
def test_the_memory_format_is_kept(routing: object) -> None:
    net, x = routed("conv2d", routing)
    x = x.to(memory_format=torch.channels_last)
    assert learned(net)[0].gate(x).is_contiguous(memory_format=torch.channels_last)


@routings
def test_a_gate_depends_on_seed_and_name_only_and_draws_no_global_numbers(routing: object) -> None:
    def two(seed: int, names: str) -> dict[str, nn.Module]:
        net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
        state = torch.get_rng_state()
        for name in names:
            attach(net, name, routing, seed)
        assert torch.equal(torch.get_rng_state(), state)
        return gates(net)

    def first(gate: nn.Module) -> Tensor:
        return next(p for p in gate.parameters() if p.any())

    both, alone = two(0, "01"), two(0, "1")
    assert torch.equal(first(both["1"]), first(alone["1"]))
    assert not torch.equal(first(both["0"]), first(both["1"]))
    assert not torch.equal(first(two(1, "1")["1"]), first(alone["1"]))


@routings
def test_detaching_leaves_the_layer_as_it_was(routing: object) -> None:
    net, x = routed("conv2d", routing)
    keys = [key for key in net.state_dict() if ".gate." not in key]
    gate = detach(net[0])
    assert list(net.state_dict()) == keys
    assert not net[0]._forward_pre_hooks
    assert detach(net[0]) is None
    torch.testing.assert_close(net(x), nn.functional.conv2d(gate(x), net[0].weight, net[0].bias))


@routings
def test_a_layer_with_a_gate_of_its_own_is_refused(routing: object) -> None:
    net, _ = routed("conv2d", routing)
    with pytest.raises(ModelError, match=r"KD113: 0: .*gate"):
        attach(net, "0", routing)


@routings
def test_layers_that_are_never_called_cannot_be_routed(routing: object) -> None:
    assert routing.can_route(Layer("a", "Conv2d", (4, 8, 3, 3))) is None
    assert routing.can_route(Layer("a", "Conv2d", (4, 8, 3, 3), reason="KD101")) is None
    assert routing.can_route(Layer("a", "Linear", (4, 8), reason="KD107")) == "KD113"


def test_the_width_of_se_is_a_share_of_the_channels_or_given() -> None:
    se = ROUTINGS["se"]
    assert se().tensors((4, 8, 3, 3), 2)["fc1.weight"] == (4, 16)
    assert se(reduction=64).tensors((4, 8, 3, 3), 1)["fc1.weight"] == (1, 8)
    assert se(width=16).tensors((4, 8, 3, 3), 1)["fc2.weight"] == (8, 16)
    for options in ({"reduction": 0}, {"width": 0}):
        with pytest.raises(RecipeError, match=r"KD203: routing se: .* at least 1"):
            se(**options)
