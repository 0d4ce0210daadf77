"""Plans keep every limit of a device, and an impossible limit is answered by the nearest that is possible."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from support.plans import TOY

from kdna_convert.core.errors import PlanError
from kdna_convert.core.specs import Plan
from kdna_convert.stages.plan.budget import PlanBudget
from kdna_convert.stages.plan.costs import Sizes, family_cost, predicted_error
from kdna_convert.stages.plan.knapsack import solve
from kdna_convert.stages.plan.limits import BoardLimits, Peak, PeakLimit, SumLimit

FAMILIES = range(len(TOY.choices))
RANKS = (1, 2, 3)
DENSE_PEAK = {name: 100 + 10 * number for number in FAMILIES for name in TOY.choices[number].family.members}


def flash(number: int, size: int) -> int:
    """Bytes of the parameters, one each, beyond the dense ones."""
    choice = TOY.choices[number]
    return family_cost(TOY, choice, size, "params") - family_cost(TOY, choice, None, "params")


def latency(number: int, size: int) -> int:
    """A chain saves less the wider it is; dense, a family takes 1,000 ns."""
    return 100 * size - 700


def peak(number: int, size: int) -> Peak:
    """A chain needs less than dense up to rank 2."""
    return Peak(60 + 10 * number + 25 * size, f"a{number}")


def limits(
    most_flash: int | None = None, most_time: int | None = None, most_memory: int | None = None, others: int = 50
) -> BoardLimits:
    sums = (
        SumLimit("flash", most_flash, TOY.params, flash),
        SumLimit("latency", most_time, 3000, latency),
    )
    return BoardLimits("toy", "int8", sums, PeakLimit(most_memory, Peak(others, "pool"), DENSE_PEAK, peak))


def used(plan: Plan) -> tuple[int, int, int]:
    assert plan.board is not None
    flash, latency, memory = (limit.used for limit in plan.board.limits)
    return flash, latency, memory


def costs(sizes: Sizes) -> tuple[int, int, int]:
    use = limits().use(TOY.choices, sizes)
    flash, latency, memory = (limit.used for limit in use.limits)
    return flash, latency, memory


def least_error(most: tuple[float, float, float], also: Callable[[Sizes], bool] = lambda sizes: True) -> float:
    """The least predicted error of all plans within the limits, by trying every plan."""
    every = itertools.product((None, *RANKS), repeat=len(TOY.choices))
    kept = [own for own in every if all(a <= b for a, b in zip(costs(own), most, strict=True)) and also(own)]
    return min(
        sum(predicted_error(choice, size) for choice, size in zip(TOY.choices, sizes, strict=True)) for sizes in kept
    )


@pytest.mark.parametrize("most_flash", [700, 900, 1200, None])
@pytest.mark.parametrize("most_time", [1500, 2300, None])
@pytest.mark.parametrize("most_memory", [115, 125, None])
def test_a_plan_keeps_all_limits_and_no_other_plan_has_less_error(
    most_flash: int | None, most_time: int | None, most_memory: int | None
) -> None:
    if (most_flash, most_time, most_memory) == (None, None, None):
        return
    plan = solve(TOY, None, limits(most_flash, most_time, most_memory))
    most = tuple(float("inf") if own is None else own for own in (most_flash, most_time, most_memory))
    assert all(own <= limit for own, limit in zip(used(plan), most, strict=True))
    assert sum(plan.predicted.values()) == pytest.approx(least_error(most))  # type: ignore[arg-type]


def test_a_budget_holds_besides_the_limits() -> None:
    plan = solve(TOY, PlanBudget("params", 700), limits(most_time=1900, most_memory=125))
    assert plan.planned.params <= 700
    assert used(plan)[1] <= 1900
    assert used(plan)[2] <= 125
    within = least_error((700, 1900, 125))  # flash is one byte a parameter here
    assert sum(plan.predicted.values()) == pytest.approx(within)


def test_limits_that_the_net_keeps_as_it_is_leave_it_dense() -> None:
    plan = solve(TOY, None, limits(TOY.params, 3000, 200))
    assert plan.families == ()
    assert used(plan) == (TOY.params, 3000, 120)


def test_without_any_limit_the_recipe_decides_and_the_estimates_are_reported() -> None:
    with pytest.raises(PlanError, match="KD504"):
        solve(TOY, None, limits())
    plan = solve(TOY, PlanBudget("params", 700), limits())
    assert plan.board is not None
    assert [limit.allowed for limit in plan.board.limits] == [None, None, None]


@pytest.mark.parametrize(
    ("most", "message"),
    [
        (
            {"most_flash": 100},
            r"--max-flash 100 bytes cannot be met; the least flash that this recipe can make is \d+ bytes",
        ),
        ({"most_time": 900}, "--max-latency 0.0009 ms cannot be met; the least latency .* is 0.0012 ms"),
        (
            {"most_memory": 90},
            "--max-peak-memory 90 bytes cannot be met: layer a2 needs 105 bytes dense or in any other form; "
            "the least is 105 bytes",
        ),
        (
            {"most_memory": 115, "others": 130},
            "--max-peak-memory 115 bytes cannot be met: pool needs 130 bytes, and no conversion changes that; "
            "the least is 130 bytes",
        ),
    ],
)
def test_a_limit_that_no_plan_keeps_is_named_with_the_least_possible(most: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError, match=f"KD501: {message}"):
        solve(TOY, None, limits(**most))


def test_two_limits_that_exclude_each_other_are_both_named_and_the_nearest_is_possible() -> None:
    """Dense is fast here, and chains are small."""
    slow = SumLimit("latency", 3050, 3000, lambda number, size: 40)
    small = SumLimit("flash", 700, TOY.params, flash)
    both = BoardLimits("toy", "int8", (small, slow), PeakLimit(None, Peak(0, "pool"), DENSE_PEAK, peak))
    with pytest.raises(PlanError) as refused:
        solve(TOY, None, both)
    latency = "--max-latency 0.00305 ms cannot be met together with --max-flash 700 bytes; the nearest is 0.00308 ms"
    assert refused.value.message == latency
    nearest = BoardLimits("toy", "int8", (small, SumLimit("latency", 3080, 3000, slow.extra)), both.peak)
    assert used(solve(TOY, None, nearest))[:2] <= (700, 3080)


def test_a_limit_of_memory_that_a_limit_of_time_excludes_is_raised_to_the_nearest() -> None:
    """Small memory needs chains, which are slow here."""
    slow = SumLimit("latency", 3010, 3000, lambda number, size: 1000)
    memory = PeakLimit(115, Peak(0, "pool"), DENSE_PEAK, peak)
    with pytest.raises(PlanError) as refused:
        solve(TOY, None, BoardLimits("toy", "int8", (slow,), memory))
    assert refused.value.message == (
        "--max-peak-memory 115 bytes cannot be met together with --max-latency 0.00301 ms; the nearest is 120 bytes"
    )
