"""What the page asks for, without the page: budgets, edits, files, a conversion."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.command import FEW_IMAGES, NET, kdna
from support.command import TINY as TINY_FILE

import kdna_convert
from kdna_convert.api.explore import Exploration, explore
from kdna_convert.core.errors import KdnaError, PlanError
from kdna_convert.core.specs import Plan, from_json
from kdna_convert.explore.session import SteeringSession
from kdna_convert.explore.writing_out import GivenOptions, command_by, command_text
from kdna_convert.inputs.models import example_input, load_model
from kdna_convert.inputs.recipe import Forced, Recipe, load_recipe, resolve, steered_recipe
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.plan.budget import PlanBudget
from kdna_convert.stages.plan.edits import Way
from kdna_convert.stages.plan.steered import steered

pytestmark = pytest.mark.usefixtures("quick_predictions")

LAYER = "blocks.1.conv1"
TINY = [each for each in FEW_IMAGES if each != "--set"]


@pytest.fixture(scope="module")
def exploration(quick_predictions: None, images: Path) -> Exploration:
    recipe = load_recipe("balanced", [*TINY, "alternatives=[{scheme: codebook}]", "repair=[refit]"])
    return explore(NET, recipe=recipe, data=str(images))


@pytest.fixture
def session(exploration: Exploration) -> SteeringSession:
    made = SteeringSession(exploration)
    made.solve()
    return made


def plan_of(session: SteeringSession) -> Plan:
    session.solve()
    assert session.plan is not None
    return session.plan


def place_of(session: SteeringSession, layer: str) -> int:
    return [one.name for one in session.exploration.database.layers].index(layer)


def test_the_first_plan_is_that_of_the_verb(exploration: Exploration, images: Path) -> None:
    plan = kdna_convert.plan(NET, recipe=exploration.recipe, data=str(images))
    assert plan_of(SteeringSession(exploration)) == plan


def test_a_smaller_budget_makes_a_smaller_plan_and_every_figure_follows(session: SteeringSession) -> None:
    before = session.solve()
    session.set_budget("params", 0.4)
    after = session.solve()
    assert plan_of(session).planned.params <= 0.4 * session.whole.params
    changed = {key for key in before if before[key] != after[key]}
    assert {"budget", "figures", "strips", "families"} <= changed


def test_changes_are_json(session: SteeringSession) -> None:
    session.edit([LAYER], None, None)
    for changes in (session.solve(), session.select(3), session.edits(), session.curve(), session.outputs.progress()):
        json.dumps(changes)


def test_a_budget_that_cannot_be_met_is_a_sentence_and_its_button_meets_one(session: SteeringSession) -> None:
    session.set_budget("params", 0.01)
    told = session.solve()
    assert "cannot be met" in told["problem"]
    assert told["problem"].endswith("Raise the budget.")
    assert "--" not in told["problem"]
    assert told["nearest"]
    session.take_nearest()
    assert session.solve()["problem"] is None


def test_a_budget_is_shown_as_it_was_asked_for_and_asked_for_again_is_met(session: SteeringSession) -> None:
    session.set_budget("params", 0.001)
    assert session.solve()["budget"]["share"] == 0.1
    session.take_nearest()
    share = session.solve()["budget"]["share"]
    session.set_budget("params", share / 100)
    assert session.solve()["problem"] is None


def test_without_a_plan_nothing_of_the_last_one_is_shown(session: SteeringSession) -> None:
    session.set_budget("params", 0.01)
    told = session.solve()
    assert told["figures"] == []
    assert {family for _, _, family, *_ in told["strips"]} == {None}
    assert {kept for kept, _, _, skipped, *_ in told["strips"] if not skipped} == {0.0}
    assert "family" not in told["legend"] + told["families"]


def test_changes_that_no_budget_below_the_whole_keeps_are_told_with_what_helps(session: SteeringSession) -> None:
    layers = [one.name for one in session.exploration.database.layers]
    session.edit(layers, None, None)
    told = session.solve()
    assert "Undo a change or raise the budget." in told["problem"]
    assert "100.0 % of the original" in told["nearest"]
    curve = session.curve()
    assert curve["chart"] is None
    assert curve["curve"].startswith("There is no plan with 90 % of the parameters or fewer")
    session.take_nearest()
    assert session.solve()["problem"] is None
    session.undo(0)
    session.solve()
    assert session.curve()["curve"].startswith("What is expected")


def test_bytes_that_a_codec_meets_are_no_budget(session: SteeringSession) -> None:
    assert session.kinds == ("params", "bytes", "macs")
    with pytest.raises(PlanError, match="KD506"):
        session.set_budget("latency", 0.5)


def test_an_edit_has_a_cost_and_is_undone(session: SteeringSession) -> None:
    plain = plan_of(session)
    session.edit([LAYER], None, None)
    assert LAYER not in {name for one in plan_of(session).families for name in one.members}
    ((text, cost),) = session.edits()["edits"]
    assert text == f"{LAYER}: dense"
    assert "predicted error +" in cost
    session.undo(0)
    assert session.edits() == {"edits": []}
    assert plan_of(session) == plain


@pytest.mark.parametrize("share", [0.6, 0.01])
def test_a_layer_that_the_user_keeps_dense_is_said_to_be_that(session: SteeringSession, share: float) -> None:
    session.set_budget("params", share)
    session.edit([LAYER], None, None)
    changes, place = session.solve(), place_of(session, LAYER)
    told = [session.select(place)["editor"]["state"], *changes["strips"][place][-2:]]
    assert all("You kept it dense." in one and "KD101" not in one for one in told)
    others = [session.select(number)["editor"]["state"] for number in range(len(changes["strips"]))]
    assert "`" not in str(changes["strips"]) + str(others)
    assert "You kept" not in session.select(place_of(session, "stem"))["editor"]["state"]


def test_an_edit_of_a_layer_replaces_its_earlier_one_and_leaves_the_rest_of_that(session: SteeringSession) -> None:
    session.edit([LAYER, "blocks.0.conv1"], None, None)
    session.edit([LAYER], 0, 4)
    assert [(one.layers, one.way, one.size) for one in session.at.edits] == [
        (("blocks.0.conv1",), None, None),
        ((LAYER,), Way("cp"), 4),
    ]


def test_an_edit_that_cannot_be_kept_changes_nothing(session: SteeringSession) -> None:
    with pytest.raises(KdnaError, match="KD514"):
        session.edit([LAYER], 0, 10_000)
    assert session.at.edits == ()


@pytest.mark.parametrize("typed", ["3.5", 3.5, "?", "1e9", "inf"])
def test_a_size_that_is_no_whole_number_is_refused_in_a_sentence(session: SteeringSession, typed: object) -> None:
    with pytest.raises(PlanError, match="rank must be a whole number"):
        session.edit([LAYER], 0, typed)
    assert session.at.edits == ()


def test_a_size_is_taken_as_it_is_typed(session: SteeringSession) -> None:
    session.edit([LAYER], 0, " 4 ")
    session.edit(["blocks.0.conv1"], 0, "")
    assert [one.size for one in session.at.edits] == [4, None]


@pytest.mark.parametrize("path", ["a\0b", "~no-such-user/plan.json", "n" * 5000])
@pytest.mark.parametrize("what", ["plan", "recipe", "convert"])
def test_a_path_that_no_system_takes_is_said(session: SteeringSession, what: str, path: str) -> None:
    assert "cannot be used" in session.write(what, path, False)["told"]


def test_what_nobody_foresaw_is_a_line_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nicegui")
    from kdna_convert.explore.steering_page import guarded

    pushed: list[Any] = []

    async def fails(value: str) -> None:
        raise ValueError(value)

    asyncio.run(guarded(SimpleNamespace(push=pushed.append), fails, "seven"))  # type: ignore[arg-type]
    assert "seven" in pushed[0]["failed"]
    assert "ValueError" in capsys.readouterr().err


def test_a_selected_layer_says_what_it_may_become(session: SteeringSession) -> None:
    editor: Any = session.select(place_of(session, LAYER))["editor"]
    assert (editor["layer"], editor["place"]) == (LAYER, place_of(session, LAYER))
    assert {offer["text"] for offer in editor["offers"]} == {"cp", "codebook"}
    assert LAYER in editor["family"]
    assert session.select(place_of(session, "stem"))["editor"]["offers"] == []
    assert session.select(10_000)["editor"] is None


def test_a_written_plan_is_the_plan_of_the_conversion(session: SteeringSession, images: Path, tmp_path: Path) -> None:
    session.edit([LAYER], None, None)
    plan = plan_of(session)
    assert f"--plan {tmp_path / 'p.json'}" in session.write("plan", str(tmp_path / "p.json"), False)["told"]
    assert from_json(Plan, (tmp_path / "p.json").read_bytes()) == plan
    done = kdna("convert", NET, "--data", images, *FEW_IMAGES, "--plan", tmp_path / "p.json", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert kdna_convert.open_folder(tmp_path / "out").plan.families == plan.families


def test_a_written_recipe_plans_with_the_same_edits(session: SteeringSession, images: Path, tmp_path: Path) -> None:
    session.edit([LAYER], None, None)
    session.edit(["blocks.0.conv1"], 1, 6)
    session.set_budget("params", 0.6)
    session.solve()
    session.write("recipe", str(tmp_path / "mine.yaml"), False)
    plan = kdna_convert.plan(NET, recipe=str(tmp_path / "mine.yaml"), data=str(images))
    stored = {name: one for one in plan.families for name in one.members}
    assert LAYER not in stored
    assert (stored["blocks.0.conv1"].scheme, stored["blocks.0.conv1"].options["rank"]) == ("codebook", 6)
    assert plan.planned.params <= 0.6 * plan.original.params


def test_a_written_recipe_says_each_thing_once(session: SteeringSession, tmp_path: Path) -> None:
    session.edit([LAYER], None, None)
    session.solve()
    session.write("recipe", str(tmp_path / "mine.yaml"), False)
    text = (tmp_path / "mine.yaml").read_text()
    assert text.count(LAYER) == text.count("exclude") == 1


def test_a_recipe_that_converts_nothing_is_not_written(session: SteeringSession, tmp_path: Path) -> None:
    session.edit([one.name for one in session.exploration.database.layers], None, None)
    session.set_budget("params", 1.0)
    session.solve()
    assert "Nothing was written" in session.write("recipe", str(tmp_path / "mine.yaml"), False)["told"]
    assert not (tmp_path / "mine.yaml").exists()


def test_the_told_command_converts_as_it_stands(session: SteeringSession, images: Path, tmp_path: Path) -> None:
    told = session.write("plan", str(tmp_path / "my plan's.json"), False)["told"]
    words = shlex.split(told.partition("To convert by it: ")[2])
    assert words[:2] == ["kdna", "convert"]
    assert words[words.index("--data") + 1] == str(images)
    assert words[words.index("--plan") + 1] == str(tmp_path / "my plan's.json")
    words[words.index("small")] = str(tmp_path / "small")
    done = kdna(*words[1:], *FEW_IMAGES)
    assert done.exit_code == 0, done.stderr


def test_the_told_command_names_what_was_given(exploration: Exploration) -> None:
    given = {
        "model": "m",
        "data": None,
        "checkpoint": "w 1.pth",
        "data_free": True,
        "device": "auto",
        "inputs": {"input_size": (3, 8, 8), "crop_mode": "squash", "sample_rate": None},
    }
    told = command_text(replace(exploration, model="m", arguments=given), ["-r", "a.yaml"])
    options = "--checkpoint 'w 1.pth' --data-free --input-size 3,8,8 --crop squash"
    assert told == f"kdna convert m {options} -r a.yaml -o small"


GIVEN = GivenOptions(("--set", "repair=[]"), ("--threads", "1"), ("--database", "errors.json"))


def told_command(session: SteeringSession, what: str, path: Path) -> str:
    told: str = session.write(what, str(path), True)["told"]
    return told.partition("To convert by it: ")[2]


def test_the_told_command_repeats_the_options_that_it_needs(exploration: Exploration, tmp_path: Path) -> None:
    """A plan needs the recipe; a recipe that was written has it, and the errors are its own until there are edits."""
    session = SteeringSession(exploration, given=GIVEN)
    session.solve()
    by_plan, by_recipe = (told_command(session, what, tmp_path / what) for what in ("plan", "recipe"))
    assert f"--set 'repair=[]' --plan {tmp_path / 'plan'}" in by_plan
    assert "errors.json" not in by_plan
    assert f"-r {tmp_path / 'recipe'} --database errors.json" in by_recipe
    assert "--set" not in by_recipe
    assert "--threads" not in by_recipe
    session.edit([LAYER], None, None)
    session.solve()
    assert "errors.json" not in told_command(session, "recipe", tmp_path / "recipe")


def test_a_budget_of_time_is_told_with_what_timed_the_layers(exploration: Exploration, tmp_path: Path) -> None:
    database = exploration.database
    at = steered(replace(database, latency=10_000_000))
    words = command_by(tmp_path / "r", "recipe", GIVEN, at, PlanBudget("latency", 7_000_000))
    assert words == ["-r", str(tmp_path / "r"), "--target-latency", "7ms", *GIVEN.latency, *GIVEN.database]


def test_what_kdna_did_not_write_is_never_replaced_by_a_conversion(session: SteeringSession, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for force in (False, True):
        for target in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
            answered = session.write("convert", str(target), force)
            assert "was not written by kdna" in answered["told"]
            assert "--force" not in answered["told"]
            assert "replace" not in answered
    assert session.outputs.conversion is None


def test_rules_for_the_same_layer_are_replaced() -> None:
    rules = [{"layers": [LAYER, "blocks.0.conv2"], "scheme": "lowrank"}]
    recipe = Recipe(scheme="cp", rules=rules, budget={"params": 0.6}, calibration={"images": 30, "heldout": 20})  # type: ignore[arg-type]
    loaded = load_model(NET)
    layers = survey(loaded.model, example_input(loaded.data))
    new = steered_recipe(recipe, layers, ["blocks.0.conv1"], [Forced((LAYER,), "basis", {"rank": 4})], {"macs": 0.5})
    found = {one.layer: (one.scheme, one.reason) for one in resolve(new, layers)}
    assert found[LAYER] == ("basis", None)
    assert found["blocks.0.conv2"] == ("lowrank", None)
    assert found["blocks.0.conv1"] == (None, "KD101")
    assert new.budget is not None
    assert new.budget.macs == 0.5


@pytest.mark.parametrize("what", ["plan", "recipe"])
def test_a_file_is_replaced_only_when_that_is_confirmed(session: SteeringSession, tmp_path: Path, what: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    assert "exists" in session.write(what, str(mine), False)["replace"]
    assert mine.read_text() == "mine"
    assert "Written" in session.write(what, str(mine), True)["told"]
    assert mine.read_text() != "mine"
    assert "KD601" in session.write(what, str(tmp_path), True)["told"]


def test_a_place_that_cannot_be_written_is_said(session: SteeringSession, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "KD604" in session.write("plan", str(tmp_path / "file" / "plan.json"), False)["told"]


def waited(session: SteeringSession) -> str:
    until = time.monotonic() + 120
    while session.outputs.converts and time.monotonic() < until:
        time.sleep(0.05)
    return str(session.outputs.progress()["told"])


def test_a_conversion_is_started_followed_and_written(session: SteeringSession, tmp_path: Path) -> None:
    started = session.write("convert", str(tmp_path / "out"), False)
    assert started["progress"] is not None
    assert "running" in session.write("convert", str(tmp_path / "other"), False)["told"]
    assert f"Written to {tmp_path / 'out'}" in waited(session)
    assert kdna_convert.open_folder(tmp_path / "out").plan.families == plan_of(session).families
    assert (tmp_path / "out" / "report.html").is_file()
    assert "Replace it" in session.write("convert", str(tmp_path / "out"), False)["replace"]


def test_a_stopped_conversion_writes_nothing(session: SteeringSession, tmp_path: Path) -> None:
    session.write("convert", str(tmp_path / "out"), False)
    session.outputs.stop()
    assert "Stopped" in session.outputs.progress()["told"]
    assert not (tmp_path / "out").exists()


def test_a_conversion_that_fails_says_why(exploration: Exploration, tmp_path: Path) -> None:
    gone = {**exploration.arguments, "data": str(tmp_path / "nowhere")}
    session = SteeringSession(replace(exploration, arguments=gone))
    session.write("convert", str(tmp_path / "out"), False)
    assert "KD401" in waited(session)


@pytest.mark.parametrize(
    ("model", "recipe"),
    [(NET, "scheme: dense\ncodec: fp16\n"), (f"{TINY_FILE}:nothing_to_convert", "scheme: cp\nbudget: {params: 0.5}\n")],
    ids=["recipe", "model"],
)
def test_what_has_nothing_to_convert_is_refused_before_the_work(
    model: str, images: Path, recipe: str, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(recipe)
    stages: list[str] = []
    with pytest.raises(KdnaError, match="KD306"):
        explore(model, recipe=str(tmp_path / "r.yaml"), data=str(images), progress=lambda what, *_: stages.append(what))
    assert stages == ["load the model"]


def test_time_is_a_budget_once_it_is_measured(exploration: Exploration, images: Path, tmp_path: Path) -> None:
    timed = explore(
        NET, recipe=exploration.recipe, data=str(images), latency=True, runtime="torch", profile=tmp_path / "times"
    )
    session = SteeringSession(timed)
    assert "latency" in session.kinds
    session.set_budget("latency", 1.0)
    changes = session.solve()
    assert " ms, 100.0 % of the original" in changes["budget"]["amount"]
    assert "time, run factored" in [name for name, _, _ in changes["figures"]]
    session.write("recipe", str(tmp_path / "mine.yaml"), False)
    assert "--target-latency" in (tmp_path / "mine.yaml").read_text().splitlines()[0]


def test_a_recipe_that_sets_the_sizes_begins_with_them(images: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("scheme: cp\noptions: {rank: 5}\n")
    made = explore(NET, recipe=str(tmp_path / "r.yaml"), data=str(images))
    assert (
        plan_of(SteeringSession(made)).families == kdna_convert.plan(NET, recipe=made.recipe, data=str(images)).families
    )
