"""What is alive at each step of a forward pass: counted by hand on nets of a few numbers."""

import torch
from support.small_nets import images, small
from torch import Tensor, nn

from kdna_convert.network.liveness import LiveStep, live_steps

Row = tuple[str, int, int, int, int]


def rows(net: nn.Module, x: Tensor, *layers: str) -> list[Row]:
    steps: tuple[LiveStep, ...] = live_steps(net.eval(), x, layers)
    return [(step.name, step.takes, step.gives, step.beside, step.keeps) for step in steps if step.layer]


def test_a_layer_of_a_chain_holds_its_input_and_its_output() -> None:
    steps = rows(small(), images(), "stem", "body.0", "body.2", "last", "head")
    assert steps == [
        ("stem", 432, 864, 0, 0),
        ("body.0", 864, 864, 0, 0),
        ("body.2", 864, 216, 0, 0),
        ("last", 216, 216, 0, 0),
        ("head", 6, 4, 0, 0),
    ]


class Skip(nn.Module):
    """Two layers beside a skip path."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 10), nn.Linear(10, 4)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(torch.relu(self.first(x)))
        if self.in_place:
            inner += x
            return inner
        return inner + x


def test_a_skip_path_is_alive_beside_its_branch() -> None:
    expected = [("first", 4, 10, 0, 4), ("second", 10, 4, 4, 0)]
    assert rows(Skip(in_place=False), torch.rand(2, 4), "first", "second") == expected


def test_a_sum_written_in_place_is_alive_as_one_that_is_not() -> None:
    x = torch.rand(1, 4)
    first, second = (live_steps(Skip(in_place=how).eval(), x, ["first", "second"]) for how in (False, True))
    assert [step.alive for step in first] == [step.alive for step in second]
    assert first[-1].alive == 8  # the sum is written over one of its terms


class Twice(nn.Module):
    """One layer, run twice; its first input is read again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(self.layer(x)), x.view(-1, 3)], 1)


def test_a_layer_that_runs_twice_has_two_steps_and_a_view_keeps_what_it_shows() -> None:
    steps = live_steps(Twice().eval(), torch.rand(1, 3), ["layer"])
    assert [(step.name, step.alive, step.keeps) for step in steps] == [("layer", 6, 3), ("layer", 9, 0), ("cat", 12, 0)]


def test_what_does_not_depend_on_the_input_is_not_counted() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            grown = self.scale.repeat(100).view(100, 3).mean(0)
            return self.layer(x) * grown

    steps = live_steps(Scaled().eval(), torch.rand(1, 3), ["layer"])
    assert max(step.alive for step in steps) == 6


def test_the_net_keeps_its_modes_and_has_no_hooks_afterwards() -> None:
    net = small().train()
    live_steps(net, images(), ["stem"])
    assert net.training
    assert not net.stem._forward_hooks
    assert not net.stem._forward_pre_hooks
