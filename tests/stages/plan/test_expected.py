"""What a plan predicts: measured conversions are inside the range, and a curve recommends the smallest good plan."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from support.benchmarks import benchmark
from support.places import ROOT

from kdna_convert.core.measurements import Divergence, Point
from kdna_convert.core.specs import ModelRef, Plan, Totals
from kdna_convert.stages.plan.expected import LARGEST, RECOMMENDED, Expected, expected, recommended

RESULTS = ROOT / "benchmarks" / "results"
REPAIRING = ("balanced", "accurate")


def point(predicted: float, params: int = 1, measured: Divergence | None = None) -> Point:
    return Point(0.5, Totals(params, 1, 1), predicted, measured)


def expectation(predicted: float, repaired: bool = True) -> Expected:
    ranges = expected(point(predicted), repaired=repaired)
    assert ranges is not None
    return ranges


def measured_rows() -> list[tuple[str, bool, float, float, float]]:
    """(name, repaired, predicted error, KL, agreement) of every conversion in benchmarks/results."""
    rows: list[tuple[str, bool, float, float, float]] = []
    for row in json.loads((RESULTS / "expected.json").read_text())["rows"]:
        for key in ("before", "after"):
            name = f"{row['net']} {row['recipe']} {row['keep']} {key}"
            rows.append((name, key == "after", row["predicted"], row[key]["kl"], row[key]["agreement"]))
    for row in benchmark("zoo").recorded():
        if row["budget"].startswith("params") and row["predicted"]:
            measures = row["result"]["measures"]
            repaired = row["recipe"] in REPAIRING
            rows.append((row["job"], repaired, row["predicted"], measures["kl"], measures["agreement"]))
    return rows


@pytest.mark.parametrize(("name", "repaired", "predicted", "kl", "agreement"), measured_rows())
def test_every_measured_conversion_is_inside_the_range(
    name: str, repaired: bool, predicted: float, kl: float, agreement: float
) -> None:
    ranges = expected(point(predicted), repaired=repaired)
    assert ranges is not None
    assert ranges.kl.low <= kl <= ranges.kl.high, name
    # an image of 128 or 250 is 0.4 to 0.8 %
    assert ranges.agreement.low - 0.005 <= agreement <= ranges.agreement.high + 0.005, name


@pytest.mark.parametrize("repaired", [True, False])
def test_more_predicted_error_is_more_divergence_and_less_agreement(repaired: bool) -> None:
    errors = [10 ** (power / 20) for power in range(-100, -5)]
    ranges = [expectation(error, repaired=repaired) for error in errors]
    for field in ("low", "middle", "high"):
        assert all(getattr(a.kl, field) < getattr(b.kl, field) for a, b in pairwise(ranges))
        assert all(getattr(a.agreement, field) >= getattr(b.agreement, field) for a, b in pairwise(ranges))
    assert all(one.kl.low < one.kl.middle < one.kl.high for one in ranges)


def test_a_net_without_repair_is_expected_to_be_further_from_the_original() -> None:
    with_it, without = expectation(0.01).kl, expectation(0.01, repaired=False).kl
    assert (without.middle, without.high) > (with_it.middle, with_it.high)


def test_nothing_is_expected_of_a_plan_without_predictions_or_beyond_what_was_measured() -> None:
    nothing = Plan(ModelRef("net"), (), (), Totals(1, 1, 1), Totals(1, 1, 1))
    assert expected(nothing) is None
    assert expected(point(1.01 * LARGEST)) is None


def test_a_plan_is_as_its_point() -> None:
    plan = Plan(ModelRef("net"), (), (), Totals(1, 1, 1), Totals(1, 1, 1), predicted={"a": 0.001, "b": 0.002})
    assert expected(plan) == expected(point(0.003))


def test_the_smallest_plan_that_is_expected_to_agree_is_recommended() -> None:
    points = [point(0.0001, 90), point(0.004, 60), point(0.05, 40), point(0.3, 10)]
    assert recommended(points) is points[1]
    assert recommended(points[2:]) is None
    assert recommended([]) is None


def test_a_measured_agreement_decides_before_an_expected_one() -> None:
    good = Divergence(agreement=RECOMMENDED, kl=0.01, logit_error=0.1, images=100)
    bad = Divergence(agreement=RECOMMENDED - 0.01, kl=0.01, logit_error=0.1, images=100)
    points = [point(0.0001, 90, bad), point(0.05, 40, good)]
    assert recommended(points) is points[1]
    assert recommended(points[:1]) is None
