"""Times of layers, kept in a file, and plans that keep within a latency."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from support.small_nets import images, small
from torch import Tensor, nn

from kdna_convert.core.choices import Choice, Database
from kdna_convert.core.errors import PlanError
from kdna_convert.core.specs import ModelRef
from kdna_convert.inputs.recipe import parse_latency, parse_recipe, resolve
from kdna_convert.schemes import scheme_of
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.latency import Clock, Runtime
from kdna_convert.stages.latency.latencies import chain_sizes, with_latencies
from kdna_convert.stages.latency.latency_file import machines
from kdna_convert.stages.latency.layer_form import LayerForm
from kdna_convert.stages.latency.layer_profile import profile_layers
from kdna_convert.stages.latency.runtime import Run
from kdna_convert.stages.plan.budget import PlanBudget
from kdna_convert.stages.plan.database import SurveyedNet, build_database
from kdna_convert.stages.plan.families import form_families
from kdna_convert.stages.plan.knapsack import solve


class Counted(Runtime):
    """A layer takes a nanosecond per hundred multiply-adds, and a net 50,000: a call returns its time."""

    name: ClassVar[str] = "counted"
    loaded: ClassVar[list[str]] = []

    def version(self) -> str:
        return "1"

    def load_layer(self, form: LayerForm, threads: int, dtype: str) -> Run:
        self.loaded.append("layer")
        outs = prod(-(-side // step) for side, step in zip(form.input[2:], form.stride, strict=True))
        cost = sum(prod(kernel) for kernel in form.kernels) * outs
        return lambda: cost // 100

    def load_net(self, net: nn.Module, example: Tensor, threads: int) -> Run:
        self.loaded.append("net")
        return lambda: 50_000


def clock(file: Path, machine: str | None = None) -> Clock:
    Counted.loaded.clear()
    measure = lambda run: int(run())  # noqa: E731
    made = Clock(Counted(), 1, file, measure=measure)
    return made if machine is None else replace(made, machine=machine)


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


class Wide(nn.Module):
    """Three layers of 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.repeat(1, 11, 1, 1)[:, :32]).mean((2, 3)))


def database(net: nn.Module) -> Database:
    recipe = parse_recipe("{scheme: lowrank, include: ['*'], exclude: ['head']}")
    layers = survey(net, images())
    assigned = resolve(recipe, layers)
    layers, families = form_families(layers, assigned, None)
    surveyed = SurveyedNet(net, ModelRef("net", None, "abc"), layers, sum(layer.macs for layer in layers))
    made = build_database(surveyed, families, recipe, None)
    points = {1: 1.0, 8: 0.1, 24: 0.01}
    return replace(made, choices=tuple(replace(choice, points=points) for choice in made.choices))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Wide().eval()


def timed(net: nn.Module, file: Path) -> Database:
    return with_latencies(database(net), net, images(), clock(file))


def test_the_latency_of_a_plan_is_the_nets_less_what_its_chains_save(net: nn.Module, tmp_path: Path) -> None:
    made = timed(net, tmp_path / "times.jsonl")
    plan = solve(made, PlanBudget("latency", 40_000))
    saved = 0
    for family in plan.families:
        rank = scheme_of(family).rank  # type: ignore[attr-defined]
        full = -(-rank // 16) * 16  # a runtime computes whole blocks
        kernels = [(full, 32, 3, 3), (32, full, 1, 1)]
        saved += 32 * 32 * 9 * 144 // 100 - sum(prod(kernel) for kernel in kernels) * 144 // 100
    assert plan.planned.latency == 50_000 - saved
    assert plan.planned.latency <= 40_000
    assert plan.original.latency == 50_000
    assert plan.timed == clock(tmp_path / "times.jsonl").label


def test_a_plan_spends_the_time_that_it_has(net: nn.Module, tmp_path: Path) -> None:
    made = timed(net, tmp_path / "times.jsonl")
    errors = [sum(solve(made, PlanBudget("latency", each)).predicted.values()) for each in (49_000, 44_000, 39_000)]
    assert errors == sorted(errors)


def test_a_chain_that_is_slower_than_its_layer_costs_as_much_as_the_layer(net: nn.Module, tmp_path: Path) -> None:
    made = timed(net, tmp_path / "times.jsonl")
    slow = replace(made.choices[0].latency[0], dense=10)
    choices = [replace(choice, latency=(slow,)) for choice in made.choices]
    with pytest.raises(PlanError, match=r"KD501|cannot be met") as refused:
        solve(replace(made, choices=tuple(choices)), PlanBudget("latency", 49_999))
    assert refused.value.code == "KD501"
    assert "the smallest that this recipe can make is 0.05 ms" in refused.value.message


def test_without_a_latency_the_plan_has_none(net: nn.Module) -> None:
    plan = solve(database(net), PlanBudget("params", 20_000))
    assert (plan.planned.latency, plan.original.latency, plan.timed) == (None, None, None)


def test_a_time_is_measured_once(net: nn.Module, tmp_path: Path) -> None:
    first = timed(net, tmp_path / "times.jsonl")
    layers = len(Counted.loaded) - 1
    assert layers == len({json.dumps(json.loads(line)) for line in lines_of(tmp_path / "times.jsonl")}) - 1
    assert timed(net, tmp_path / "times.jsonl") == first
    assert Counted.loaded == []


def test_a_line_that_was_cut_off_is_measured_again(net: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "times.jsonl"
    first = timed(net, file)
    lines = file.read_text().splitlines(keepends=True)
    for rest in (lines[-1][:20], f"{lines[-1][:20]}\n"):
        file.write_text("".join([*lines[:-1], rest]))
        assert timed(net, file) == first
        assert len(Counted.loaded) == 1
    file.write_text("".join(lines).removesuffix("\n"))
    before = len(Clock(Counted(), 1, file).known)
    Clock(Counted(), 2, file, measure=lambda run: 7).net(net, images(), "another")
    assert len(Clock(Counted(), 1, file).known) == before + 1


@pytest.mark.parametrize("text", [b"\xff\xfe\x00binary", b'{"a": 1}\n[1, 2]\n', b"weights\nof a net\n"])
def test_a_file_of_something_else_is_refused_and_not_added_to(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(text)
    with pytest.raises(PlanError, match=r"KD510: .* is no file of times"):
        clock(file)
    assert file.read_bytes() == text


def test_a_folder_is_no_file_of_times(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"KD510: .* cannot be read"):
        clock(tmp_path)


def test_a_time_of_another_machine_is_not_measured_here(net: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as refused:
        with_latencies(database(net), net, images(), clock(tmp_path / "times.jsonl", "a board"))
    assert refused.value.code == "KD510"
    assert "a board" in refused.value.message


def test_times_of_another_machine_make_its_plan(net: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "times.jsonl"
    here = timed(net, file)
    rows = [json.loads(line) | {"machine": "a board"} for line in lines_of(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert machines(file) == ["a board"]
    there = with_latencies(database(net), net, images(), clock(file, "a board"))
    assert [choice.latency for choice in there.choices] == [choice.latency for choice in here.choices]


def test_chains_are_timed_at_whole_blocks_and_at_the_largest_size() -> None:
    assert chain_sizes(1, 100) == [16, 32, 48, 64, 80, 96, 100]
    assert chain_sizes(1, 5) == [5]
    assert chain_sizes(0, 0) == [0]


def test_a_layer_that_has_no_chain_has_no_times(tmp_path: Path) -> None:
    net = small()
    made = database(net)
    assert any("last" in choice.family.members for choice in made.choices)
    found = with_latencies(made, net, images(), clock(tmp_path / "times.jsonl"))
    by_layer = {choice.family.members[0]: choice.latency[0] for choice in found.choices}
    assert by_layer["body.0"].dense > 0
    assert all(isinstance(choice, Choice) for choice in found.choices)


def test_a_profile_has_a_row_for_each_form_of_layer(net: nn.Module, tmp_path: Path) -> None:
    made = profile_layers(
        net, survey(net, images()), images(), clock(tmp_path / "times.jsonl"), ["lowrank", "codebook"], "abc"
    )
    assert [(row.layers, row.calls, row.shape) for row in made.rows] == [
        (("body.0", "body.1", "body.2"), 3, (32, 32, 3, 3)),
        (("head",), 1, (4, 32)),
    ]
    assert [chain.scheme for chain in made.rows[0].chains] == ["lowrank"]  # a codebook has no chain
    chain = made.rows[0].chains[0]
    assert chain.pays_to == max(size for size, time in chain.times.items() if time < made.rows[0].dense)
    assert made.net == 50_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("12ms", 12_000_000), ("800us", 800_000), ("1.5 s", 1_500_000_000), ("0.7", 70), (0.5, 50)],
)
def test_a_latency_is_a_time_or_a_share(text: str | float, nanoseconds: int) -> None:
    assert parse_latency(text, 100) == nanoseconds


@pytest.mark.parametrize("text", ["0ms", "12", "fast", "-3ms", "12 m", "0"])
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="is not a latency") as refused:
        parse_latency(text, 100)
    assert refused.value.code == "KD506"


def test_the_smallest_case_of_torch_is_real(net: nn.Module, tmp_path: Path) -> None:
    """With a real runtime: the numbers are times."""
    from kdna_convert.stages.latency import RUNTIMES

    made = with_latencies(database(net), net, torch.zeros(1, 3, 8, 8), Clock(RUNTIMES["torch"], 1, tmp_path / "t"))
    assert made.latency is not None
    assert all(0 < member.dense < 10**9 for choice in made.choices for member in choice.latency)
