"""The benchmark of `kdna explore`'s plans: a database with made-up errors, from the shapes of a net."""

from support.benchmarks import benchmark
from support.command import NET

from kdna_convert.stages.plan.budget import PlanBudget
from kdna_convert.stages.plan.steered import answer, bounds_of, kinds_of, steered

steering = benchmark("steering")


def test_a_made_up_database_has_falling_errors_and_a_plan_for_every_kind_of_budget() -> None:
    database = steering.made_up(NET, "accurate")
    assert database == steering.made_up(NET, "accurate")
    for choice in database.choices:
        errors = [error for _, error in sorted(choice.points.items())]
        assert errors == sorted(errors, reverse=True)
    at = steered(database)
    for kind in kinds_of(database, coded=False):
        least, whole = bounds_of(at, kind)
        assert answer(at, PlanBudget(kind, (least + whole) // 2)).plan is not None
