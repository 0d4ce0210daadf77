"""Predicted errors and offers are computed at once, and are those that are computed one by one."""

import math
from dataclasses import replace

import numpy as np
import pytest

from kdna_convert.core.choices import Choice, MemberMacs
from kdna_convert.core.specs import Family, Layout
from kdna_convert.stages.plan.costs import predicted_error, predicted_errors

CHOICE = Choice(Family("cp", ("a",)), "rank", 1, 900, Layout({}, ({},)), (MemberMacs(1),))


def one_by_one(points: dict[int, float], size: int) -> float:
    """The definition: a power of the size between two points and beyond the last one."""
    measured = sorted(points)
    logs = [math.log(max(points[point], 1e-300)) for point in measured]
    places = [math.log1p(point) for point in measured]
    if len(measured) > 1 and size > measured[-1]:
        slope = (logs[-1] - logs[-2]) / (places[-1] - places[-2])
        return math.exp(logs[-1] + slope * (math.log1p(size) - places[-1]))
    return math.exp(float(np.interp(math.log1p(size), places, logs)))


@pytest.mark.parametrize("seed", range(20))
def test_errors_at_once_are_to_the_bit_those_of_each_size(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    sizes = sorted({int(size) for size in drawn.integers(1, 900, 60)})
    measured = sorted({int(size) for size in drawn.integers(1, 600, drawn.integers(1, 7))})
    points = dict(zip(measured, sorted(drawn.lognormal(0, 3, len(measured)).tolist(), reverse=True), strict=True))
    choice = replace(CHOICE, points=points)
    expected = [one_by_one(points, size) for size in sizes]
    assert predicted_errors(choice, sizes) == expected
    assert [predicted_error(choice, size) for size in sizes] == expected


def test_without_points_or_dense_nothing_is_predicted() -> None:
    assert predicted_errors(CHOICE, [1, 2]) == [0.0, 0.0]
    assert predicted_error(replace(CHOICE, points={1: 2.0}), None) == 0.0
