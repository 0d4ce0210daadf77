"""Laws of edited plans: what is asked for is kept, and without edits the plan is that of `kdna plan`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import tiny
from support.command import NET
from support.plans import TOY

import kdna_convert
from kdna_convert.core.choices import Database
from kdna_convert.core.errors import PlanError
from kdna_convert.core.specs import Plan, from_json
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.stages.plan.budget import Kind, PlanBudget
from kdna_convert.stages.plan.costs import family_cost, original_totals
from kdna_convert.stages.plan.edits import Edit, Way, offers_of, with_edits
from kdna_convert.stages.plan.knapsack import solve
from kdna_convert.stages.plan.prices import Prices
from kdna_convert.stages.plan.steered import answer, bounds_of, kinds_of, steered, without

pytestmark = pytest.mark.usefixtures("quick_predictions")

RECIPE = Recipe(scheme="cp", alternatives=[{"scheme": "codebook"}, {"scheme": "lowrank"}], budget={"params": 0.5})  # type: ignore[arg-type,list-item]
CP, CODEBOOK, LOWRANK = Way("cp"), Way("codebook"), Way("lowrank")
LAYER = "blocks.1.conv1"
KINDS: tuple[Kind, ...] = ("params", "bytes", "macs")


@pytest.fixture(scope="module")
def made(quick_predictions: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, Plan]:
    """The database of the tiny net under three schemes, and the plan of half of its parameters."""
    path = tmp_path_factory.mktemp("database") / "database.json"
    plan = kdna_convert.plan(NET, recipe=RECIPE, data=tiny.noise(24), target_params=0.5, database=path)
    return from_json(Database, path.read_bytes()), plan


@pytest.fixture
def database(made: tuple[Database, Plan]) -> Database:
    return made[0]


def half(database: Database) -> PlanBudget:
    return PlanBudget("params", database.params // 2)


def planned(database: Database, *edits: Edit) -> Plan:
    plan = answer(steered(database, edits), half(database)).plan
    assert plan is not None
    assert plan.planned.params <= database.params // 2
    return plan


def stored_as(plan: Plan, layer: str) -> Way | None:
    return next(
        (Way(one.scheme) for one in plan.families if layer in one.members),
        None,
    )


def test_without_edits_the_plan_is_that_of_the_verb(made: tuple[Database, Plan]) -> None:
    database, plan = made
    assert with_edits(database, ()) is database
    assert planned(database) == plan


@pytest.mark.parametrize("kind", KINDS)
def test_prices_are_the_costs_of_the_families(database: Database, kind: Kind) -> None:
    prices = Prices(database, kind)
    for number, choice in enumerate(database.choices):
        for size in (None, choice.smallest, 9, 10, choice.limit):
            assert prices.cost(number, size) == family_cost(database, choice, size, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_remembered_prices_change_no_plan(database: Database, kind: Kind) -> None:
    prices, whole = Prices(database, kind), getattr(original_totals(database), kind)
    for share in (0.6, 0.8, 0.6):
        budget = PlanBudget(kind, int(share * whole))
        assert solve(database, budget, prices=prices) == solve(database, budget)


def test_an_excluded_layer_stays_dense_and_the_others_do_not_notice(database: Database) -> None:
    plan = planned(database, Edit((LAYER,)))
    assert stored_as(plan, LAYER) is None
    assert {layer.name: layer.reason for layer in plan.layers}[LAYER] == "KD101"
    assert plan.families


def test_a_net_of_excluded_layers_is_the_original(database: Database) -> None:
    everything = Edit(tuple(layer.name for layer in database.layers))
    at = steered(database, [everything])
    whole = original_totals(database).params
    plan = answer(at, PlanBudget("params", whole)).plan
    assert plan is not None
    assert plan.families == ()
    assert plan.planned.params == whole
    assert answer(at, half(database)).plan is None
    assert bounds_of(at, "params") == (whole, whole)


@pytest.mark.parametrize("way", [CP, CODEBOOK, LOWRANK])
def test_a_forced_scheme_is_kept_at_any_budget(database: Database, way: Way) -> None:
    at = steered(database, [Edit((LAYER,), way)])
    for share in (0.5, 0.7, 1.0):
        plan = answer(at, PlanBudget("params", int(share * database.params))).plan
        assert plan is not None
        assert stored_as(plan, LAYER) == way


@pytest.mark.parametrize("size", [3, 5])
def test_a_pinned_size_is_kept_and_other_layers_may_have_another(database: Database, size: int) -> None:
    plan = planned(database, Edit((LAYER,), CP, size))
    own = next(family for family in plan.families if LAYER in family.members)
    assert (own.scheme, own.options["rank"]) == ("cp", size)


def test_two_sizes_pinned_in_one_family_divide_it(database: Database) -> None:
    plan = planned(database, Edit(("blocks.0.conv1",), CP, 3), Edit((LAYER,), CP, 5))
    ranks = {name: family.options["rank"] for family in plan.families for name in family.members}
    assert (ranks["blocks.0.conv1"], ranks[LAYER]) == (3, 5)


def test_the_last_edit_of_a_layer_holds(database: Database) -> None:
    assert stored_as(planned(database, Edit((LAYER,)), Edit((LAYER,), CP)), LAYER) == CP
    assert stored_as(planned(database, Edit((LAYER,), CP), Edit((LAYER,))), LAYER) is None


def test_a_layer_is_in_one_family_at_most_after_any_edit(database: Database) -> None:
    for edits in ((Edit((LAYER,), CP),), (Edit((LAYER,), CODEBOOK, 6), Edit(("blocks.0.conv2",)))):
        members = [name for family in planned(database, *edits).families for name in family.members]
        assert len(members) == len({*members})


def test_an_edit_never_lowers_the_predicted_error_of_its_own_families(database: Database) -> None:
    """The parts of a divided family have its error in proportion, so that division alone gains nothing."""
    before = sum(planned(database).predicted.values())
    named = {name for choice in database.choices for name in choice.family.members}
    for name in sorted(named):
        assert sum(planned(database, Edit((name,), CP, 1)).predicted.values()) >= before * 0.999


def test_an_edit_that_cannot_be_kept_is_a_sentence(database: Database) -> None:
    for edit, why in (
        (Edit((LAYER,), Way("tucker")), "cannot be stored as tucker"),
        (Edit((LAYER,), CP, 10_000), "cannot have rank 10000"),
        (Edit(("nowhere",), CP), "no layer nowhere"),
        (Edit(("stem",), CP), "stem cannot be converted"),
    ):
        with pytest.raises(PlanError, match=why) as raised:
            steered(database, [edit])
        assert raised.value.code == "KD514"


@pytest.mark.parametrize("kind", KINDS)
def test_below_the_least_budget_there_is_no_plan(database: Database, kind: Kind) -> None:
    at = steered(database, [Edit((LAYER,))])
    refused = answer(at, PlanBudget(kind, 1))
    assert refused.plan is None
    assert refused.problem is not None
    least, whole = bounds_of(at, kind)
    assert whole == getattr(original_totals(database), kind)
    assert answer(at, PlanBudget(kind, least)).plan is not None
    assert answer(at, PlanBudget(kind, least - 1)).plan is None


def test_the_offers_of_a_layer_are_what_it_may_be_forced_to(database: Database) -> None:
    assert {each.way for each in offers_of(database, LAYER)} == {CP, CODEBOOK, LOWRANK}
    assert offers_of(database, "stem") == ()
    for offer in offers_of(database, LAYER):
        steered(database, [Edit(offers_members(database, offer.way), offer.way, offer.limit)])


def offers_members(database: Database, way: Way) -> tuple[str, ...]:
    return next(one.family.members for one in database.choices if Way(one.family.scheme) == way)


def test_an_edit_is_undone_alone(database: Database) -> None:
    both = steered(database, [Edit((LAYER,)), Edit(("blocks.0.conv1",))])
    assert without(both, database, 0).edits == (Edit(("blocks.0.conv1",)),)
    assert without(without(both, database, 0), database, 0).database is database


def test_time_is_a_budget_only_where_it_was_measured() -> None:
    assert kinds_of(TOY, coded=False) == ("params", "bytes", "macs")
    assert kinds_of(TOY, coded=True) == ("params", "macs")


def test_a_plan_is_solved_again_while_a_slider_moves(database: Database) -> None:
    at = steered(database, [Edit((LAYER,), CP)])
    answer(at, half(database))
    began = time.perf_counter()
    for share in range(50, 90, 4):
        answer(at, PlanBudget("bytes", int(share / 100 * original_totals(database).bytes)))
    assert (time.perf_counter() - began) / 10 < 0.2


def test_a_plan_with_edits_converts(database: Database, tmp_path: Path) -> None:
    plan = planned(database, Edit((LAYER,)), Edit(("blocks.0.conv1",), CODEBOOK, 6))
    conversion = kdna_convert.convert(NET, recipe=RECIPE, data=tiny.noise(24), plan=plan)
    assert conversion.plan.families == plan.families
    assert conversion.plan.planned.params == plan.planned.params
