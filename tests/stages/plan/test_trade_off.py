"""The trade-off over budgets, and the search for the smallest net within a drop."""

import pytest
from support.plans import TOY

from kdna_convert.core.errors import GuardError, PlanError
from kdna_convert.core.measurements import Divergence, Point
from kdna_convert.core.specs import Plan, Totals
from kdna_convert.stages.plan.max_drop import FINE, LEAST, MOST, smallest
from kdna_convert.stages.plan.trade_off import correlation, trade_off


def seen(kl: float) -> Divergence:
    return Divergence(agreement=1 - kl, kl=kl, logit_error=kl, images=10)


def point(predicted: float, kl: float | None) -> Point:
    return Point(0.5, Totals(1, 1, 1), predicted, None if kl is None else seen(kl))


def test_fewer_parameters_never_predict_less_error() -> None:
    curve = trade_off(TOY)
    assert len(curve.points) > 3
    for more, fewer in zip(curve.points, curve.points[1:], strict=False):
        assert fewer.planned.params < more.planned.params <= more.share * curve.params
        assert fewer.predicted >= more.predicted


def test_unreachable_budgets_end_the_curve() -> None:
    whole = trade_off(TOY, shares=(0.9, 0.5, 1e-3))
    assert [one.share for one in whole.points] == [0.9, 0.5]
    with pytest.raises(PlanError, match="KD501"):
        trade_off(TOY, shares=(1e-3,))


def test_measured_points_give_a_rank_correlation() -> None:
    curve = trade_off(TOY, measure=lambda plan: seen(min(1.0, 1e-3 * sum(plan.predicted.values()))))
    assert curve.correlation == pytest.approx(1.0)
    assert all(one.measured is not None for one in curve.points)


def test_a_correlation_needs_three_different_points() -> None:
    assert correlation([point(1, 0.1), point(2, 0.2)]) is None
    assert correlation([point(1, 0.1), point(2, 0.1), point(3, 0.1)]) is None
    assert correlation([point(1, 0.3), point(2, 0.2), point(3, 0.1)]) == pytest.approx(-1)
    assert correlation([point(1, 0.1), point(2, None), point(3, 0.2)]) is None


@pytest.mark.parametrize("holds_from", [0.05, 0.333, 0.72, 0.9])
def test_the_search_ends_within_a_hundredth_of_the_smallest_that_holds(holds_from: float) -> None:
    result = smallest(lambda share: (share, 0.5 if share >= holds_from else 3.0), 1.0)
    assert holds_from <= result.result <= holds_from + FINE
    assert {trial.drop <= 1.0 for trial in result.trials if trial.share == result.result} == {True}


def test_an_unreachable_share_counts_as_too_small() -> None:
    def attempt(share: float) -> tuple[float, float]:
        if share < 0.4:
            raise PlanError("KD501", "cannot be met")
        return share, 0.0

    assert 0.4 <= smallest(attempt, 1.0).result <= 0.4 + FINE


def test_a_guard_that_no_share_meets_is_an_error() -> None:
    with pytest.raises(GuardError, match="KD801") as failure:
        smallest(lambda share: (share, 5.0), 1.0)
    assert failure.value.exit_code == 3


def test_any_other_error_ends_the_search() -> None:
    def attempt(share: float) -> tuple[Plan, float]:
        raise PlanError("KD503", "does not fit")

    with pytest.raises(PlanError, match="KD503"):
        smallest(attempt, 1.0)
    assert LEAST < MOST
