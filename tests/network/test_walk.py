"""The walk through two nets at once, and the least-squares problems it yields."""

import copy
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import torch
from support.tiny import Net, net_with_statistics
from torch import Tensor, nn

from kdna_convert.network.lockstep import interleaves
from kdna_convert.network.trace import RunLayer, held_bytes, run_layers, trace
from kdna_convert.network.walk import Stop, drawn_positions, in_order, kernel_of, layer_problem, match_mean, walk

Nets = tuple[nn.Module, nn.Module, tuple[RunLayer, ...], list[Tensor]]


def pair_of(net: nn.Module, images: Tensor) -> Nets:
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    layers = in_order(run_layers(net, trace(net, images[:1]), names))
    return net, copy.deepcopy(net), layers, list(images.split(8))


@pytest.fixture
def nets() -> Nets:
    return pair_of(net_with_statistics(), torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1)) + 0.5)


@contextmanager
def at(nets: Nets, name: str) -> Iterator[Stop]:
    with closing(walk(*nets)) as stops:
        yield next(stop for stop in stops if stop.layer.name == name)


def input_of(net: nn.Module, name: str, batch: Tensor) -> Tensor:
    """The input of a layer in an ordinary forward pass."""
    seen: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    with torch.no_grad():
        net(batch)
    handle.remove()
    return seen[0]


def test_every_layer_sees_the_inputs_of_its_own_prefix_as_changed_so_far(nets: Nets) -> None:
    net, other, layers, batches = nets
    stops = []
    for stop in walk(*nets):
        stops.append(stop.layer.name)
        for x, target, batch in zip(stop.inputs, stop.targets, batches, strict=True):
            torch.testing.assert_close(x, input_of(other, stop.layer.name, batch))
            with torch.no_grad():
                torch.testing.assert_close(target, stop.module0(input_of(net, stop.layer.name, batch)))
        with torch.no_grad():
            stop.module.weight.mul_(0.9)  # type: ignore[operator]
    assert stops == ["stem", *(f"blocks.{block}.conv{half}" for block in (0, 1) for half in (1, 2)), "fc"]
    assert stops == [layer.name for layer in layers]


class Shortcut(nn.Module):
    """A branch, and a skip path with a layer of its own, which runs after the branch."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.down = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(3, 6, 1)
        self.last, self.in_place = nn.Conv2d(6, 4, 3), in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.in_place:
            y += self.down(x)
        else:
            y = self.down(x) + y
        return self.last(torch.relu_(y)).mean((2, 3))


@pytest.mark.parametrize("in_place", [False, True])
def test_both_layers_that_meet_in_a_sum_are_seen_with_the_other_as_changed(in_place: bool) -> None:
    net = Shortcut(in_place).eval()
    nets = pair_of(net, torch.randn(8, 3, 6, 6))
    _, other, layers, (batch,) = nets
    assert [layer.name for layer in layers] == ["conv", "down", "last"]
    for stop in walk(*nets):
        error = stop.skip_error(0)
        if stop.layer.name == "down":
            assert error is not None
            with torch.no_grad():
                changed = net.norm(net.conv(batch)) - other.norm(other.conv(batch))
            torch.testing.assert_close(error, changed)
            assert float(error.abs().max()) > 0.01
        torch.testing.assert_close(stop.inputs[0], input_of(other, stop.layer.name, batch))
        with torch.no_grad():
            stop.module.weight.mul_(0.5)  # type: ignore[operator]


def test_a_walk_takes_one_forward_pass_of_each_net(nets: Nets) -> None:
    net, other, _, batches = nets
    calls = {id(net): 0, id(other): 0}

    def count(module: nn.Module, *_: object) -> None:
        calls[id(owners[module])] += 1

    owners = {one.blocks[1].conv1: one for one in (net, other)}
    for module in owners:
        module.register_forward_hook(count)
    plain = len(batches) * len(owners)
    before = 1 + 4  # the look at memory on one image, and two passes that take turns and two that do not
    for _ in walk(*nets):
        pass
    assert sum(calls.values()) == plain + before


def test_layers_with_many_positions_see_fewer_images() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(4), nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    nets = pair_of(net, torch.randn(24, 3, 18, 18))
    held = held_bytes(net, ["0"], nets[3][0][:1])["0"]
    assert held == 4 * 8 * 16 * 16
    counts = [sum(map(len, stop.inputs)) for stop in walk(*nets, memory=2 * held * 20)]
    assert counts == [16, 24]  # whole batches of 8


def test_a_batch_that_does_not_fit_is_split(nets: Nets) -> None:
    net, _, layers, batches = nets
    widest = max(held_bytes(net, [layer.name for layer in layers], batches[0][:1]).values())
    counts = [[len(x) for x in stop.inputs] for stop in walk(*nets, memory=2 * widest * 3)]
    assert counts[0] == [3]
    assert all(size <= 3 for sizes in counts for size in sizes)


class Remembering(Net):
    """Keeps an activation in the module, as nets with hooks do."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.stem(x)
        y = self.blocks[1](self.blocks[0](torch.relu(self.kept)))
        return self.fc((y + self.kept).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_net_that_stores_activations_in_a_module_is_walked_with_one_batch() -> None:
    net = Remembering().eval()
    images = torch.randn(24, 3, 16, 16)
    nets = pair_of(net, images)
    assert not interleaves(net, nets[2], images)
    for stop in walk(*nets):
        (x,) = stop.inputs
        torch.testing.assert_close(x, input_of(nets[1], stop.layer.name, images))


def test_an_error_of_the_net_reaches_the_caller_and_no_thread_is_left(nets: Nets) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 1:
                raise ValueError("too many")
            return x

    nets[1].blocks[1].conv2 = Failing()  # type: ignore[union-attr]
    running = threading.active_count()
    with pytest.raises(ValueError, match="too many"):
        for _ in walk(*nets):
            pass
    assert threading.active_count() == running


def test_a_walk_that_is_left_ends_its_threads_and_removes_its_hooks(nets: Nets) -> None:
    running = threading.active_count()
    stops = walk(*nets)
    next(stops)
    assert threading.active_count() > running
    stops.close()
    assert threading.active_count() == running
    for net in nets[:2]:
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_walk_restores_modes_and_the_number_of_threads(nets: Nets) -> None:
    threads = torch.get_num_threads()
    for net in nets[:2]:
        net.train()
    for stop in walk(*nets):
        assert not stop.original.training
    assert all(module.training for net in nets[:2] for module in net.modules())
    assert torch.get_num_threads() == threads


def test_the_kernels_of_an_unchanged_net_solve_their_problems(nets: Nets) -> None:
    for stop in walk(*nets):
        problem = layer_problem(stop, positions=10_000)
        torch.testing.assert_close(problem.cross_on, kernel_of(stop.module0) @ problem.moment_nn, atol=1e-4, rtol=1e-3)


def test_moments_are_those_of_the_unfolded_inputs(nets: Nets) -> None:
    with at(nets, "stem") as stop:
        problem = layer_problem(stop, positions=10_000)
    rows = torch.cat(
        [nn.functional.unfold(batch, 3, padding=1, stride=2).movedim(1, 2).flatten(0, 1) for batch in nets[3]]
    )
    torch.testing.assert_close(problem.moment_nn, (rows.T @ rows / len(rows)).double(), atol=1e-5, rtol=1e-4)


def test_few_images_give_more_positions_each_so_that_a_layer_has_sixteen_patches_per_column(nets: Nets) -> None:
    for stop in walk(*nets):
        problem = layer_problem(stop)
        columns, images = len(problem.moment_nn), sum(len(x) for x in stop.inputs)
        available = stop.targets[0].flatten(2).shape[2] if stop.targets[0].ndim > 2 else 1
        assert problem.count == images * min(available, max(64, -(-16 * columns // images)))
    assert drawn_positions(1728, 52) * 52 >= 16 * 1728
    assert drawn_positions(576, 1000) == 64


def test_the_last_layer_of_a_branch_corrects_the_error_of_the_skip_path(nets: Nets) -> None:
    """With the skip path off by a constant, the target's mean moves by that constant through the normalization."""
    net, other, _, batches = nets
    with torch.no_grad():
        other.stem.weight.zero_()
    with at(nets, "blocks.0.conv2") as stop:
        plain, corrected = layer_problem(stop, skip=False), layer_problem(stop)
    scale = net.blocks[0].bn2.weight / (net.blocks[0].bn2.running_var + net.blocks[0].bn2.eps).sqrt()
    skip = torch.cat([input_of(net, "blocks.0.conv1", batch) for batch in batches]).mean((0, 2, 3))
    torch.testing.assert_close(corrected.mean_o - plain.mean_o, (skip / scale).double(), atol=1e-4, rtol=1e-3)


def test_matching_the_mean_restores_that_of_a_changed_layer(nets: Nets) -> None:
    def means(stop: Stop) -> list[Tensor]:
        outputs = zip(*stop.outputs(), strict=True)
        norms = (net.blocks[0].bn1 for net in nets[:2])
        return [norm(torch.cat(parts)[..., None]).mean((0, 2, 3)) for norm, parts in zip(norms, outputs, strict=True)]

    with at(nets, "blocks.0.conv1") as stop:
        problem = layer_problem(stop, positions=10_000)
        with torch.no_grad():
            stop.module.weight.mul_(0.7)  # type: ignore[operator]
        assert not torch.allclose(*means(stop), atol=1e-2)
        match_mean(stop, problem)
        torch.testing.assert_close(*means(stop), atol=1e-4, rtol=1e-4)


def test_matching_the_mean_of_an_unchanged_net_changes_nothing(nets: Nets) -> None:
    net, other, _, batches = nets
    for stop in walk(*nets):
        match_mean(stop, layer_problem(stop, positions=10_000))
    torch.testing.assert_close(other(batches[0]), net(batches[0]), atol=1e-4, rtol=1e-4)
