"""GRID: what a sweep runs. Every mistake in the file is refused with its line."""

from pathlib import Path

import pytest

from kdna_convert.core.errors import RecipeError
from kdna_convert.inputs.grid_reading import load_grid, parse_grid

GRID = """
data: kdna:digits/train
models: [kdna:digits]
recipes: [balanced]
budgets: [{params: 0.5}, {bytes: 1/20}]
"""


def test_every_net_recipe_budget_and_seed_is_a_job() -> None:
    text = GRID.replace("[kdna:digits]", "[kdna:digits, 'torchvision:resnet18']").replace(
        "[balanced]", "[balanced, lowrank]"
    )
    jobs = parse_grid(f"{text}seeds: [0, 1, 2]\n").jobs
    assert len(jobs) == len({job.name for job in jobs}) == 2 * 2 * 2 * 3
    assert {job.net.name for job in jobs} == {"digits", "resnet18"}
    assert jobs[0].name == "digits-balanced-params0.5-seed0"
    assert jobs[0].changes == ["seed=0"]


def test_a_net_has_its_own_budgets_recipes_seeds_and_images_in_place_of_the_grids() -> None:
    own = "{model: 'a.py:net', budgets: [{params: 0.3}], recipes: [lowrank], seeds: [7], data: images, eval_data: test}"
    first, *rest = parse_grid(GRID.replace("[kdna:digits]", f"[{own}, kdna:digits]")).jobs
    assert (first.budget.flags, first.recipe.name, first.seed) == (["--target-params", "0.3"], "lowrank", 7)
    assert (first.data, first.eval_data) == ("images", "test")
    assert [(job.data, job.seed) for job in rest] == [("kdna:digits/train", None)] * 2


def test_the_keys_of_a_net_are_options_of_kdna_run() -> None:
    net = "{model: 'a.py:net', checkpoint: w.pth, input_size: 64, mean: '0.5,0.5,0.5'"
    net = f"{net}, eval_data: x, original: {{top1: 0.9}}}}"
    job = parse_grid(GRID.replace("[kdna:digits]", f"[{net}]")).jobs[0]
    assert job.net.flags == ["--checkpoint", "w.pth", "--input-size", "64", "--mean", "0.5,0.5,0.5"]
    assert job.net.original == {"top1": 0.9}


def test_a_variable_of_the_environment_is_replaced_and_a_missing_one_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = GRID.replace("kdna:digits/train", "${KDNA_GRID}/train")
    monkeypatch.setenv("KDNA_GRID", "/images")
    assert parse_grid(text).jobs[0].data == "/images/train"
    monkeypatch.delenv("KDNA_GRID")
    with pytest.raises(RecipeError, match=r"KD209: grid line 2: data: the variable KDNA_GRID is not set"):
        parse_grid(text)


def test_a_change_of_a_recipe_has_a_name_of_its_own() -> None:
    quick = "{recipe: balanced, name: quick, set: ['repair=[]']}"
    jobs = parse_grid(GRID.replace("[balanced]", f"[balanced, {quick}]")).jobs
    assert {(job.recipe.name, tuple(job.changes)) for job in jobs} == {("balanced", ()), ("quick", ("repair=[]",))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRID.replace("budgets", "budget"), "KD209: grid line 5: budget: unknown key"),
        (GRID.replace("{params: 0.5}", "{params: 1.5}"), "KD209: grid line 5: budgets.0.params"),
        (GRID.replace("{params: 0.5}", "{params: 0.5, bytes: 1/3}"), "must have one of `params` and `bytes`"),
        (GRID.replace("{params: 0.5}", "{}"), "must have one of `params` and `bytes`"),
        (GRID.replace("[kdna:digits]", "[]"), "KD210: grid has no job: models is empty"),
        (GRID.replace("[balanced]", "[]"), "KD210: grid has no job: recipes is empty"),
        (GRID.replace("[kdna:digits]", "[kdna:digits, kdna:digits]"), "two nets are called digits"),
        (GRID.replace("[balanced]", "[balanced, none]"), "KD206"),
        (GRID.replace("[balanced]", "[{recipe: balanced, set: [scheme=none]}]"), "KD203"),
        (GRID.replace("[balanced]", "[{recipe: balanced, name: ../up}]"), "KD209: grid line 4: recipes.0.name"),
        (
            GRID.replace("[kdna:digits]", "[{model: a, original: {top1: 0.9}}]"),
            "measured on `eval_data`; give these",
        ),
        (GRID.replace("[kdna:digits]", "[{model: a, original: {top_1: 0.9}}]"), "original: top_1 is not one of top1"),
        (GRID.replace("[kdna:digits]", "['a.py:net', 'b.py:Net']"), "two nets are called net"),
        (GRID + "seeds: [-1]\n", "KD209: grid line 6: seeds.0"),
        ("- a\n- b\n", "KD209: grid line 1: must be a mapping"),
        ("a: [\n", "KD209: grid line 2"),
    ],
)
def test_a_mistake_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_grid(text)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="KD209"):
        load_grid(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="KD209"):
        load_grid(tmp_path / "bytes.yaml")
