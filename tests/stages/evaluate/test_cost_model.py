"""The expected cost of a conversion grows with all that it depends on, and names the stages that the recipe has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdna_convert.cli.report.plan import cost_line
from kdna_convert.core.measurements import ExpectedCost
from kdna_convert.core.specs import Layer
from kdna_convert.inputs.recipe import Recipe, load_recipe
from kdna_convert.stages.evaluate.cost_model import START, Speed, expected_cost
from kdna_convert.stages.evaluate.machine_speed import machine_speed

SPEED = Speed(convolutions=5e10, products=1e11, cores=2)


def net(width: int = 64, depth: int = 8, side: int = 32) -> tuple[Layer, ...]:
    shape, positions = (width, width, 3, 3), side**2
    layer = Layer("", "Conv2d", shape, in_positions=positions, out_positions=positions)
    return tuple(replace(layer, name=str(number)) for number in range(depth))


def cost(layers: tuple[Layer, ...], recipe: str = "balanced", images: int = 200, speed: Speed = SPEED) -> ExpectedCost:
    return expected_cost(layers, load_recipe(recipe), images, speed)


@pytest.mark.parametrize("recipe", ["balanced", "accurate", "smallest"])
def test_a_wider_deeper_or_larger_net_and_more_images_cost_more(recipe: str) -> None:
    layers = net() if recipe != "smallest" else tuple(replace(layer, reason="KD103") for layer in net())
    base = cost(layers, recipe)
    assert base.seconds == pytest.approx(sum(base.stages.values()))
    reason = layers[0].reason
    for larger in (net(width=128), net(depth=16), net(side=64)):
        grown = cost(tuple(replace(layer, reason=reason) for layer in larger), recipe)
        assert grown.seconds > base.seconds
        assert grown.bytes > base.bytes
    assert cost(layers, recipe, images=400).seconds > base.seconds


def test_the_stages_are_those_of_the_recipe_and_none_without_layers() -> None:
    assert list(cost(net(), "shared-cp").stages) == ["load", "calibrate", "predict", "fit"]
    assert list(cost(net(), "balanced").stages) == ["load", "calibrate", "predict", "fit", "repair"]
    dense = tuple(replace(layer, reason="KD103") for layer in net())
    assert list(cost(dense, "smallest").stages) == ["load", "code"]
    assert cost(dense, "balanced").seconds == START
    assert "repair" not in cost(net(), "balanced", images=0).stages  # repair needs images


@pytest.mark.parametrize(("recipe", "stage"), [("smallest", "code"), ("balanced", "fit"), ("balanced", "repair")])
def test_what_is_counted_takes_half_the_time_at_twice_the_speed(recipe: str, stage: str) -> None:
    once, twice, at_once = (
        cost(net(), recipe, speed=Speed(factor * 5e10, factor * 1e11, 2)).stages[stage] for factor in (1, 2, 1e12)
    )
    assert once - at_once == pytest.approx(2 * (twice - at_once))


def test_memory_is_bounded_where_the_recipe_bounds_the_moments() -> None:
    wide = net(width=1024, side=7)
    bounded = Recipe(scheme="cp", calibration={"memory": 10**9})
    saved = expected_cost(wide, Recipe(scheme="cp"), 200, SPEED).bytes - expected_cost(wide, bounded, 200, SPEED).bytes
    moments = 4 * 8 * (9 * 1024) ** 2
    assert saved == pytest.approx(2 * (min(moments, 4 * 2**30) - 10**9))


@pytest.mark.parametrize(
    ("seconds", "cores", "line"),
    [
        (170, 2, "expected: about 3 min and 2.1 GB on this machine (2 cores)"),
        (14.2, 1, "expected: about 14 s and 2.1 GB on this machine (1 core)"),
    ],
)
def test_the_line_rounds_to_minutes_or_seconds(seconds: float, cores: int, line: str) -> None:
    assert cost_line(ExpectedCost(seconds, 2.13e9, {}, cores)) == line


def test_the_machine_has_a_speed() -> None:
    speed = machine_speed(torch.device("cpu"))
    assert min(speed.convolutions, speed.products) > 1e6
    assert speed.cores == torch.get_num_threads()
