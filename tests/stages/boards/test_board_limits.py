"""The estimates of a plan equal those of the net that it makes: flash, latency and peak memory, to the byte."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from support.small_nets import images, small
from support.tiny import Net
from torch import Tensor, nn

from kdna_convert.core.choices import Database
from kdna_convert.core.specs import ModelRef, Plan
from kdna_convert.inputs.boards import Board, parse_board
from kdna_convert.inputs.recipe import parse_recipe, resolve
from kdna_convert.network.derive import derive_empty, factor
from kdna_convert.network.liveness import live_steps
from kdna_convert.network.totals import macs
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.boards import BoardTarget, board_limits
from kdna_convert.stages.boards.layer_costs import cycles_of, dense_link
from kdna_convert.stages.plan.database import SurveyedNet, build_database
from kdna_convert.stages.plan.families import form_families
from kdna_convert.stages.plan.knapsack import plan_of

CHAINS = ("cp", "separable", "basis", "tucker", "output", "lowrank")
KINDS = {"convolution": 2, "depthwise": 5, "pointwise": 3, "linear": 7, "layer": 50}
CYCLES = "".join(f"  {kind}: {{value: {value}, source: a test}}\n" for kind, value in KINDS.items())
BOARD: Board = parse_board(
    "name: test\nsummary: a test\nestimate: true\nclock: {value: 1e9, source: a test}\n"
    "code: {value: 1000, source: a test}\nwork: {value: 300, source: a test}\n"
    f"int8:\n{CYCLES}fp32:\n{CYCLES}"
)


def database(net: nn.Module, x: Tensor, scheme: str) -> Database:
    recipe = parse_recipe(f"scheme: {scheme}")
    layers = survey(net, x)
    layers, families = form_families(layers, resolve(recipe, layers), None)
    surveyed = SurveyedNet(net, ModelRef("net", None, "abc"), layers, macs(net, x))
    return build_database(surveyed, families, recipe, None)


def nets() -> dict[str, tuple[nn.Module, Tensor]]:
    return {"small": (small(), images(1)), "tiny": (Net(12).eval(), torch.rand(1, 3, 16, 16))}


def planned(net: nn.Module, x: Tensor, scheme: str, size: int, arithmetic: str = "int8") -> Plan:
    """Every family at this size, or the largest."""
    made = database(net, x, scheme)
    limits = board_limits(made, net, x, BoardTarget(BOARD, arithmetic))  # type: ignore[arg-type]
    return plan_of(made, tuple(min(max(size, choice.smallest), choice.limit) for choice in made.choices), limits)


def made_net(net: nn.Module, plan: Plan) -> nn.Module:
    """The net that the plan makes, run as `factor` runs it."""
    return factor(derive_empty(copy.deepcopy(net), plan)).eval()


def uses(plan: Plan) -> dict[str, int]:
    assert plan.board is not None
    return {limit.name: limit.used for limit in plan.board.limits}


@pytest.mark.parametrize("name", ["small", "tiny"])
@pytest.mark.parametrize("scheme", CHAINS)
@pytest.mark.parametrize("size", [1, 2])
def test_the_estimates_of_a_chain_are_those_of_the_net_that_runs_it(name: str, scheme: str, size: int) -> None:
    net, x = nets()[name]
    plan = planned(net, x, scheme, size)
    run = made_net(net, plan)
    layers = survey(run, x)
    assert len(layers) > len(plan.layers)
    time = sum(cycles_of([dense_link(layer)], BOARD.cycles("int8")) for layer in layers)
    steps = live_steps(run, x, [layer.name for layer in layers])
    assert uses(plan) == {
        "flash": plan.planned.params + 1000,
        "latency": time,
        "peak memory": max(step.alive for step in steps) + 300,
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_flash_is_what_the_plan_stores_at_the_bytes_of_the_arithmetic(scheme: str) -> None:
    net, x = nets()["small"]
    plan = planned(net, x, scheme, 3, "fp32")
    derived = derive_empty(copy.deepcopy(net), plan)
    stored = sum(each.numel() * (4 if each.is_floating_point() else 2) for each in derived.parameters())
    assert uses(plan)["flash"] == stored + 1000


@pytest.mark.parametrize("scheme", ["codebook", "kerneldna", "atoms", "warehouse"])
def test_a_weight_that_is_computed_takes_its_memory_and_at_least_a_multiply_add_a_number(scheme: str) -> None:
    net, x = nets()["small"]
    made = database(net, x, scheme)
    limits = board_limits(made, net, x, BoardTarget(BOARD, "int8"))
    choice = made.choices[0]
    size = choice.limit
    assert all(size > member.factored_up_to for member in choice.macs)
    largest = max(choice.family.members, key=lambda name: limits.peak.dense[name])
    assert limits.peak.peak(0, size).bytes == limits.peak.dense[largest] + 6 * 6 * 9
    time = next(limit for limit in limits.sums if limit.name == "latency")
    assert time.extra(0, size) >= len(choice.family.members) * 7 * 6 * 6 * 9


def test_the_original_is_the_plan_without_families() -> None:
    net, x = nets()["tiny"]
    made = database(net, x, "cp")
    limits = board_limits(made, net, x, BoardTarget(BOARD, "fp32"))
    use = limits.use(made.choices, [None] * len(made.choices))
    layers = survey(net, x)
    steps = live_steps(net, x, [layer.name for layer in layers])
    assert {limit.name: limit.used for limit in use.limits} == {
        "flash": 4 * made.params + 1000,
        "latency": sum(cycles_of([dense_link(layer)], BOARD.cycles("fp32")) for layer in layers),
        "peak memory": 4 * max(step.alive for step in steps) + 300,
    }
    assert all(limit.used == limit.original for limit in use.limits)


def test_the_step_with_the_peak_is_named() -> None:
    net, x = nets()["small"]
    plan = planned(net, x, "cp", 1)
    assert plan.board is not None
    assert plan.board.limits[-1].at == "stem"  # 432 + 864; the chains of the others are narrow


def test_matrix_products_outside_of_layers_count_as_linear() -> None:
    net, x = nets()["tiny"]
    made = database(net, x, "cp")
    more = replace(made, macs=made.macs + 1000)
    before, after = (board_limits(own, net, x, BoardTarget(BOARD, "int8")).sums[1].dense for own in (made, more))
    assert after - before == 7 * 1000


def test_without_a_board_there_is_no_latency() -> None:
    net, x = nets()["small"]
    made = database(net, x, "cp")
    limits = board_limits(made, net, x, BoardTarget(None, "int8", flash=10**6))
    assert [limit.name for limit in limits.sums] == ["flash"]
    assert limits.sums[0].dense == made.params
