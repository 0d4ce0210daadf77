"""Laws of the planner: exact sizes, budgets that hold, and databases that solve any budget."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.command import NET
from support.plans import TOY, toy
from torch import Tensor, nn

import kdna_convert
from kdna_convert.core.choices import Choice, Database, MemberMacs
from kdna_convert.core.errors import KdnaError, PlanError, RecipeError
from kdna_convert.core.fingerprint import Fingerprint
from kdna_convert.core.specs import Family, Layer, Layout, Plan, Route, TensorSpec, from_json, to_json
from kdna_convert.inputs.models import example_input
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.derive import factor
from kdna_convert.network.folder import Conversion, save
from kdna_convert.network.totals import totals
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.plan.budget import PlanBudget, budget_of
from kdna_convert.stages.plan.costs import Kind, original_totals, predicted_error, stored_tensors
from kdna_convert.stages.plan.files import read_database, read_plan, request_fingerprint, write_database
from kdna_convert.stages.plan.knapsack import plan_of, solve

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(24)
SE = {"name": "se", "width": 3}
KINDS: tuple[Kind, ...] = ("params", "bytes", "macs")
NOT_FACTORED = ("kerneldna", "atoms", "codebook")  # they are run as dense kernels, so their MACs do not change


def recipe(scheme: str, **more: Any) -> Recipe:
    return Recipe(scheme=scheme, fit={"sweeps": 2}, **more)  # type: ignore[arg-type]


def stored(conversion: Conversion, folder: Path) -> tuple[int, int, int]:
    """Parameters, bytes and multiply-adds as they are, not as they were planned: on disk, and run factored."""
    save(conversion, folder)
    params = sum(parameter.numel() for parameter in conversion.model.parameters())
    run = factor(copy.deepcopy(conversion.model))
    return params, (folder / "model.safetensors").stat().st_size, totals(run, example_input(conversion.data)).macs


def learned(model: nn.Module) -> nn.Module:
    """The model with gates that have left the identity, so that they are run."""
    for name, tensor in model.named_parameters():
        if name.endswith("gate.fc2.bias"):
            tensor.data.add_(0.1)
    return model


@pytest.fixture(scope="module")
def databases(quick_predictions: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Database]:
    """The tiny net's database under every scheme."""
    by_scheme = {}
    for scheme in SCHEMES:
        path = tmp_path_factory.mktemp("databases") / f"{scheme}.json"
        kdna_convert.plan(NET, recipe=recipe(scheme), data=IMAGES, target_params=0.9, database=path)
        by_scheme[scheme] = from_json(Database, path.read_bytes())
    return by_scheme


class MixedNet(nn.Module):
    """Layers of every kind that can be converted, two and more of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.plain = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 3, padding=1, groups=2))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1, stride=2))
        self.line = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, padding="same"))
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 5)
        self.pretrained_cfg = {"input_size": (3, 16, 16)}

    def forward(self, x: Tensor) -> Tensor:
        x = self.strided(self.plain(self.stem(x)).relu()).relu()
        x = self.depthwise(self.grouped(self.dilated(x)))
        x = self.line(self.pointwise(x).flatten(2)).mean(2)
        return self.head(self.mlp(x))


@pytest.fixture(scope="module")
def mixed() -> nn.Module:
    torch.manual_seed(0)
    return MixedNet()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("budget", [{"target_params": 0.7}, {"target_bytes": "17 kB"}, {"target_macs": 0.9}, {}])
def test_planned_sizes_equal_the_stored_ones(
    scheme: str, budget: dict[str, Any], mixed: nn.Module, tmp_path: Path
) -> None:
    """Over every kind of layer; grouped ones, which cannot be run factored, count as dense."""
    ranks = {"options": {SCHEMES[scheme].size: 2 - 2 * (scheme == "kerneldna")}} if not budget else {}
    saves_no_macs = scheme in NOT_FACTORED and "target_macs" in budget
    if saves_no_macs:
        budget = {"target_macs": 1.0}
    rules = recipe(scheme, include=("type:Linear", "depthwise"), **ranks)
    conversion = kdna_convert.convert(mixed, recipe=rules, data=IMAGES, **budget)
    promised = conversion.plan.planned
    assert (promised.params, promised.bytes, promised.macs) == stored(conversion, tmp_path / "out")
    assert bool(conversion.plan.families) != saves_no_macs
    kept = sum(
        sum(t.numel() for n, t in conversion.model.named_parameters() if owns(f, n)) for f in conversion.plan.families
    )
    assert kept == sum(conversion.plan.stored.values())


def owns(family: Family, parameter: str) -> bool:
    return any(parameter.startswith(f"{name}.parametrizations.") for name in family.members)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_planned_sizes_include_the_gates(scheme: str, tmp_path: Path) -> None:
    options = {} if scheme == "kerneldna" else {"rank": 3}
    conversion = kdna_convert.convert(NET, recipe=recipe(scheme, routing=SE, options=options), data=IMAGES)
    learned(conversion.model)
    promised = conversion.plan.planned
    assert (promised.params, promised.bytes, promised.macs) == stored(conversion, tmp_path / "out")


def test_planned_sizes_without_a_family_equal_the_stored_ones(tmp_path: Path) -> None:
    conversion = kdna_convert.convert(NET, recipe=recipe("lowrank"), data=IMAGES, target_params=1.0)
    promised = conversion.plan.planned
    assert conversion.plan.families == ()
    assert (promised.params, promised.bytes, promised.macs) == stored(conversion, tmp_path / "out")


def reachable(database: Database, kind: Kind) -> tuple[int, int]:
    """The cost of the smallest plan and of the dense net: every budget between them can be met."""
    smallest = plan_of(database, tuple(choice.smallest for choice in database.choices))
    costs = [getattr(plan.planned, kind) for plan in (smallest, plan_of(database, (None,) * len(database.choices)))]
    return min(costs), costs[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_budget_holds_and_is_used_to_within_one_step(scheme: str, kind: Kind, databases: dict[str, Database]) -> None:
    database = databases[scheme]
    least, whole = reachable(database, kind)
    assert (least == whole) == (kind == "macs" and scheme in NOT_FACTORED)
    for share in (0.0, 0.3, 0.6, 0.95):
        budget = PlanBudget(kind, least + int(share * (whole - least)))
        plan = solve(database, budget)
        steps = one_step_up(database, plan)
        assert getattr(plan.planned, kind) <= budget.amount
        assert steps or share > 0.9 or least == whole, "a family can be raised"
        assert all(getattr(larger.planned, kind) > budget.amount for larger in steps), "one step more would fit"


def test_no_size_is_smaller_than_the_smallest_whose_error_was_measured(databases: dict[str, Database]) -> None:
    measured = [choice for database in databases.values() for choice in database.choices if choice.points]
    assert {choice.family.scheme for choice in measured} == set(databases)
    for choice in measured:
        assert min(choice.points) == choice.smallest, choice.family


def sizes_of(database: Database, plan: Plan) -> list[int | None]:
    chosen = {family.members[0]: family.options for family in plan.families}
    return [chosen.get(choice.family.members[0], {}).get(choice.size) for choice in database.choices]


def one_step_up(database: Database, plan: Plan) -> list[Plan]:
    sizes = sizes_of(database, plan)
    raised = [i for i, size in enumerate(sizes) if size is not None and size < database.choices[i].limit]
    steps = [[s + 1 if i == place and s is not None else s for i, s in enumerate(sizes)] for place in raised]
    return [plan_of(database, tuple(step)) for step in steps]


def loss(database: Database, plan: Plan) -> float:
    return sum(map(predicted_error, database.choices, sizes_of(database, plan)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_more_budget_never_predicts_more_error(scheme: str, kind: Kind, databases: dict[str, Database]) -> None:
    database = databases[scheme]
    least, whole = reachable(database, kind)
    amounts = [least + share * (whole - least) // 100 for share in range(0, 101, 10)]
    losses = [loss(database, solve(database, PlanBudget(kind, amount))) for amount in amounts]
    assert (losses[0] > losses[5] > 0) == (least < whole)
    assert all(more <= less + 1e-3 * losses[0] for less, more in itertools.pairwise(losses)), losses
    assert losses[-1] == 0, "the whole net's size buys the whole net"


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_choice_within_the_budget_is_better(kind: Kind) -> None:
    every = [plan_of(TOY, sizes) for sizes in itertools.product((None, 1, 2, 3), repeat=3)]
    costs = sorted({getattr(plan.planned, kind) for plan in every})
    assert len(costs) > 20
    for amount in costs[:: max(1, len(costs) // 12)]:
        best = min(loss(TOY, plan) for plan in every if getattr(plan.planned, kind) <= amount)
        solved = solve(TOY, PlanBudget(kind, amount))
        assert getattr(solved.planned, kind) <= amount
        assert loss(TOY, solved) == pytest.approx(best, rel=2e-3, abs=2e-2)


def rivals() -> Database:
    """The families of the toy, one that would have all their layers, and one that would have two of one family's."""
    names = [member for choice in TOY.choices for member in choice.family.members]
    shapes = {one.name: one.shape for one in TOY.layers}

    def rival(members: Sequence[str], points: dict[int, float]) -> Choice:
        scheme = SCHEMES["codebook"]()
        layout = scheme.layout([shapes[name] for name in members])
        macs = tuple(MemberMacs(one.macs) for one in TOY.layers if one.name in members)
        return Choice(Family("codebook", tuple(members)), "rank", 1, 3, layout, macs, points=points)

    others = (rival(names, {1: 20.0, 2: 6.0, 3: 5.0}), rival(names[:2], {1: 2.0, 2: 1.5, 3: 0.5}))
    return replace(TOY, choices=(*TOY.choices, *others))


def fits_together(database: Database, sizes: Sequence[int | None]) -> bool:
    taken = [choice for choice, size in zip(database.choices, sizes, strict=True) if size is not None]
    names = [name for choice in taken for name in choice.family.members]
    return len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
def test_of_families_that_compete_for_a_layer_the_best_choice_is_taken(kind: Kind) -> None:
    database = rivals()
    sizes = [one for one in itertools.product((None, 1, 2, 3), repeat=5) if fits_together(database, one)]
    every = [plan_of(database, one) for one in sizes]
    losses = [sum(map(predicted_error, database.choices, one)) for one in sizes]
    costs = sorted({getattr(plan.planned, kind) for plan in every})
    schemes = set()
    for amount in costs[:: max(1, len(costs) // 20)]:
        within = [loss for loss, plan in zip(losses, every, strict=True) if getattr(plan.planned, kind) <= amount]
        solved = solve(database, PlanBudget(kind, amount))
        names = [name for family in solved.families for name in family.members]
        assert len(names) == len(set(names))
        assert getattr(solved.planned, kind) <= amount
        assert sum(solved.predicted.values()) == pytest.approx(min(within), rel=2e-3, abs=4e-2)
        schemes |= {family.scheme for family in solved.families}
    assert schemes == ({"lowrank"} if kind == "macs" else {"lowrank", "codebook"})  # a codebook saves no MACs


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_that_stays_dense_meets_its_own_size_and_no_smaller_one(kind: Kind) -> None:
    dense = replace(TOY, choices=())
    whole = getattr(plan_of(dense, ()).planned, kind)
    assert solve(dense, PlanBudget(kind, whole)).families == ()
    with pytest.raises(PlanError, match="KD501"):
        solve(dense, PlanBudget(kind, whole - 1))


def test_alternatives_without_a_budget_are_an_error_that_names_one() -> None:
    with pytest.raises(PlanError, match="KD504"):
        solve(rivals(), None)


def test_an_alternative_is_used_where_it_loses_less_and_never_more_than_the_scheme_alone() -> None:
    other = {"scheme": "codebook", "options": {"gain": "filter"}}
    chosen = set()
    for share in (0.3, 0.5, 0.8):
        alone = kdna_convert.plan(NET, recipe=recipe("cp"), data=IMAGES, target_params=share)
        both = kdna_convert.plan(NET, recipe=recipe("cp", alternatives=[other]), data=IMAGES, target_params=share)
        assert sum(both.predicted.values()) <= sum(alone.predicted.values()) * 1.01
        chosen |= {family.scheme for family in both.families}
    assert "codebook" in chosen


def test_1x1_layers_in_cells_of_a_few_numbers_lose_less_than_by_low_rank() -> None:
    torch.manual_seed(0)
    rows = (layer for _ in range(3) for layer in (nn.Conv2d(48, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU()))
    net = nn.Sequential(nn.Conv2d(3, 48, 1), *rows, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 4)).eval()
    cells = [{"scheme": "codebook", "options": {"gain": "filter", "cell": cell}} for cell in (1, 2, 4)]
    for share in (0.6, 0.8):
        alone = kdna_convert.plan(net, recipe=recipe("lowrank"), data=IMAGES, target_params=share)
        both = kdna_convert.plan(net, recipe=recipe("lowrank", alternatives=cells), data=IMAGES, target_params=share)
        assert sum(both.predicted.values()) < 0.5 * sum(alone.predicted.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_budget_that_cannot_be_met_names_the_smallest_that_can(
    scheme: str, kind: Kind, databases: dict[str, Database]
) -> None:
    with pytest.raises(PlanError, match=r"KD501: .* the smallest that this recipe can make is") as caught:
        solve(databases[scheme], PlanBudget(kind, 1))
    least = int(caught.value.message.rsplit(" is ", 1)[1].split(" ")[0].replace(",", ""))
    assert getattr(solve(databases[scheme], PlanBudget(kind, least)).planned, kind) == least
    with pytest.raises(PlanError, match="KD501"):
        solve(databases[scheme], PlanBudget(kind, least - 1))


def test_a_budget_below_the_routing_names_the_size_of_the_routing() -> None:
    routed = recipe("lowrank", routing={"name": "dyconv"})
    with pytest.raises(PlanError, match=r"KD501: .*, with the ([\d,]+) parameters of its routing") as caught:
        kdna_convert.plan(tiny.Net(blocks=2).eval(), recipe=routed, data=IMAGES, target_params=0.5)
    params = int(caught.value.message.rsplit(" the ", 1)[1].split(" ")[0].replace(",", ""))
    whole = kdna_convert.plan(tiny.Net(blocks=2).eval(), recipe=routed, data=IMAGES, target_params=100_000)
    assert whole.routed == params


def test_a_missing_budget_and_rank_is_refused_at_once_with_both_ways_out(
    databases: dict[str, Database],
) -> None:
    message, stages = r"KD504: .*rank.*--target-params 0\.5, or set options\.rank", []
    for verb in (kdna_convert.plan, kdna_convert.convert):
        with pytest.raises(PlanError, match=message):
            verb(NET, recipe=recipe("cp"), data=IMAGES, progress=lambda doing, *_: stages.append(doing))  # type: ignore[operator]
    assert "calibrate" not in stages
    with pytest.raises(PlanError, match=message):
        solve(databases["cp"], None)


@pytest.mark.parametrize("budget", [{}, {"target_params": 0.9}])
def test_a_rank_that_the_recipe_fixes_is_kept(budget: dict[str, Any]) -> None:
    plan = kdna_convert.plan(NET, recipe=recipe("cp", options={"rank": 5}), data=IMAGES, **budget)
    assert [family.options["rank"] for family in plan.families] == [5]


def test_a_rank_beyond_the_limit_is_refused_with_the_limit() -> None:
    with pytest.raises(
        RecipeError, match=r"KD207: .*rank: must be in 1\.\.\d+ for the family of blocks\.0\.conv1, got 900"
    ):
        kdna_convert.plan(NET, recipe=recipe("cp", options={"rank": 900}), data=IMAGES)


def test_predicted_errors_never_rise_with_the_rank(databases: dict[str, Database]) -> None:
    for scheme, database in databases.items():
        for choice in database.choices:
            errors = [predicted_error(choice, size) for size in range(choice.smallest, choice.limit + 1)]
            assert errors[-1] < errors[0], scheme
            assert all(more <= less * (1 + 1e-12) for less, more in itertools.pairwise(errors)), scheme


@pytest.mark.parametrize("points", [{1: 2.0, 3: 0.0}, {2: 0.0, 3: 0.0}, {5: 1.0}, {}])
def test_a_predicted_error_is_finite_whatever_was_measured(points: dict[int, float]) -> None:
    choice = replace(TOY.choices[0], points=points, limit=400)
    assert all(0 <= predicted_error(choice, size) < 10 for size in (None, 1, 2, 3, 100, 400))


@pytest.mark.parametrize(
    ("arguments", "budget"),
    [
        ({"target_params": 0.5}, PlanBudget("params", TOY.params // 2)),
        ({"target_macs": 0.25}, PlanBudget("macs", TOY.macs // 4)),
        ({"target_params": "50%"}, PlanBudget("params", TOY.params // 2)),
        ({"target_macs": "1/4"}, PlanBudget("macs", TOY.macs // 4)),
        ({"target_params": 100}, PlanBudget("params", 100)),
        ({"target_bytes": "3kB"}, PlanBudget("bytes", 3000)),
        ({}, PlanBudget("params", int(0.75 * TOY.params))),
    ],
)
def test_a_budget_argument_overrides_the_recipe(arguments: dict[str, Any], budget: PlanBudget) -> None:
    assert budget_of(original_totals(TOY), recipe("lowrank", budget={"params": 0.75}), **arguments) == budget


@pytest.mark.parametrize(
    "arguments",
    [
        {"target_params": 0.5, "target_macs": 0.5},
        {"target_params": -0.5},
        {"target_params": 0},
        {"target_macs": "half"},
        {"target_params": "150%"},
        {"target_params": "1/0"},
    ],
)
def test_two_budgets_or_an_invalid_one_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="KD506"):
        budget_of(original_totals(TOY), recipe("lowrank"), **arguments)


def test_a_layer_that_cannot_become_smaller_has_a_reason() -> None:
    alone = kdna_convert.plan(Odd(), recipe=recipe("kerneldna"), data=IMAGES, target_params=1.0)
    assert {layer.name: layer.reason for layer in alone.layers}["one"] == "KD109"
    low = kdna_convert.plan(Odd(), recipe=recipe("lowrank", options={"rank": 1}), data=IMAGES)
    reasons = {layer.name: layer.reason for layer in low.layers}
    assert (reasons["thin"], reasons["one"]) == ("KD110", None)


class Odd(nn.Module):
    """Two layers of equal kernels, one of its own, and one too thin to factor."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"stem": (3, 8), "a": (8, 8), "b": (8, 8), "one": (8, 9), "thin": (9, 1)}
        for name, (before, after) in sizes.items():
            self.add_module(
                name, nn.Conv2d(before, after, 1 if name == "thin" else 3, padding=0 if name == "thin" else 1)
            )
        self.fc = nn.Linear(1, 3)
        self.pretrained_cfg = {"input_size": (3, 16, 16)}

    def forward(self, x: Tensor) -> Tensor:
        for name in ("stem", "a", "b", "one", "thin"):
            x = getattr(self, name)(x).relu()
        return self.fc(x.mean((2, 3)))


def test_a_new_budget_is_solved_from_the_database_without_torch(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "database.json"
    given = {"recipe": recipe("cp"), "data": str(images)}
    first = kdna_convert.plan(NET, **given, target_params=0.6, database=path)  # type: ignore[arg-type]
    code = f"""if True:
        import sys
        from kdna_convert.stages.plan.files import replan, request_fingerprint
        from kdna_convert.inputs.recipe import Recipe
        from kdna_convert.core.specs import to_json
        recipe = Recipe(scheme="cp", fit={{"sweeps": 2}})
        mark = request_fingerprint(recipe, {NET!r}, {str(images)!r}, {{}})
        plan = replan({str(path)!r}, mark, recipe, target_params=0.6)
        assert "torch" not in sys.modules, "torch was imported"
        print(to_json(plan), end="")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert from_json(Plan, done.stdout) == first


def test_an_existing_database_is_read_and_not_rebuilt(tmp_path: Path) -> None:
    stages: list[str] = []
    given: dict[str, Any] = {"recipe": recipe("basis"), "data": IMAGES, "database": tmp_path / "database.json"}
    for share in (0.8, 0.6):
        stages.clear()
        kdna_convert.plan(NET, **given, target_params=share, progress=lambda doing, *_: stages.append(doing))
    assert not [line for line in stages if line.startswith(("calibrate", "predict"))]


@pytest.mark.parametrize("other", ["model", "recipe", "data"])
def test_a_database_of_something_else_is_refused(other: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": tiny.net(), "recipe": recipe("lowrank"), "data": IMAGES}
    path = tmp_path / "database.json"
    kdna_convert.plan(**given, target_params=0.8, database=path)
    changed = {"model": tiny.net(8), "recipe": recipe("basis"), "data": IMAGES + 1}
    why = {"model": "another model", "recipe": "another recipe", "data": "other data"}[other]
    with pytest.raises(PlanError, match=f"KD505: .* was made from {why}; "):
        kdna_convert.plan(**{**given, other: changed[other]}, target_params=0.8, database=path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(PlanError, match=r"KD505: .*not a database"):
        read_database(tmp_path / "x.json", Fingerprint(""))
    assert read_database(tmp_path / "none.json", Fingerprint("")) is None


def test_a_database_without_parts_says_that_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "database.json"
    write_database(path, replace(TOY, fingerprint="old"))
    assert read_database(path, Fingerprint("old", {"model": "1"})) is not None
    with pytest.raises(PlanError, match=r"KD505: .* was made from another model, recipe, data or settings; delete it"):
        read_database(path, Fingerprint("new", {"model": "1", "data": "2"}))


def test_every_part_that_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "database.json"
    made_from = request_fingerprint(recipe("cp"), "net", "images", {})
    write_database(path, replace(TOY, fingerprint=made_from.whole, parts=dict(made_from.parts)))
    assert read_database(path, made_from) is not None
    others = {
        "another model": request_fingerprint(recipe("cp"), "net2", "images", {}),
        "another recipe": request_fingerprint(recipe("basis"), "net", "images", {}),
        "other data": request_fingerprint(recipe("cp"), "net", "photos", {}),
        r"other settings \(.*\)": request_fingerprint(recipe("cp", seed=1), "net", "images", {}),
        "another model and other data": request_fingerprint(recipe("cp"), "net2", "photos", {}),
    }
    for why, other in others.items():
        with pytest.raises(PlanError, match=f"KD505: .* was made from {why}; delete it"):
            read_database(path, other)


def test_a_database_of_something_else_is_refused_before_the_calibration(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": IMAGES, "target_params": 0.8, "database": tmp_path / "database.json"}
    kdna_convert.plan(NET, recipe=recipe("lowrank"), **given)
    stages: list[str] = []
    with pytest.raises(PlanError, match=r"KD505: .*another recipe"):
        kdna_convert.convert(
            NET, recipe=recipe("basis"), **given, progress=lambda what, *_: stages.append(what.split(":")[0])
        )
    assert "calibrate" not in stages


def test_the_mark_of_a_request_depends_on_all_but_its_budget() -> None:
    mark = request_fingerprint(recipe("cp"), "net", "images", {})
    assert mark == request_fingerprint(recipe("cp", budget={"params": 0.3}), "net", "images", {})
    others = [
        request_fingerprint(recipe("cp", seed=1), "net", "images", {}),
        request_fingerprint(recipe("cp"), "net2", "images", {}),
        request_fingerprint(recipe("cp"), "net", None, {}),
        request_fingerprint(recipe("cp"), "net", "images", {"data_free": True}),
        request_fingerprint(recipe("cp"), "net", "images", {"inputs": {"mean": (0.0,)}}),
    ]
    assert len({one.whole for one in (mark, *others)}) == 6


@pytest.fixture(scope="module")
def planned(quick_predictions: None) -> Plan:
    return kdna_convert.plan(NET, recipe=recipe("cp"), data=IMAGES, target_params=0.6)


def edited(plan: Plan, path: Path, **options: Any) -> Path:
    """The plan's file, after somebody changed the first family's options in an editor."""
    content = json.loads(to_json(plan))
    content["families"][0]["options"].update(options)
    path.write_text(json.dumps(content))
    return path


def test_a_plan_written_and_read_is_the_same_plan(planned: Plan, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(to_json(planned))
    assert read_plan(tmp_path / "plan.json") == planned
    again = kdna_convert.plan(NET, recipe=recipe("cp"), plan=planned)
    assert again == planned


def test_an_edited_plan_converts_with_new_totals(planned: Plan, tmp_path: Path) -> None:
    file = edited(planned, tmp_path / "plan.json", rank=7)
    conversion = kdna_convert.convert(NET, recipe=recipe("cp"), plan=file, data=IMAGES)
    promised = conversion.plan.planned
    assert conversion.plan.families[0].options["rank"] == 7
    assert promised != planned.planned
    assert conversion.plan.predicted == {}, "what was predicted was for another rank"
    assert (promised.params, promised.bytes, promised.macs) == stored(conversion, tmp_path / "out")


def test_a_plan_together_with_a_budget_is_refused(planned: Plan) -> None:
    with pytest.raises(PlanError, match="KD506: a plan"):
        kdna_convert.convert(NET, recipe=recipe("cp"), plan=planned, data=IMAGES, target_params=0.5)


@pytest.mark.parametrize(
    ("field", "value", "place_of_error"),
    [
        (("families", 0, "members"), "blocks.0.conv1", "families.0.members"),
        (("layers", 1, "shape"), ["a"], "layers.1.shape.0"),
        (("planned", "params"), "many", "planned.params"),
        (("sed",), 3, "sed"),
    ],
)
def test_a_wrong_field_of_a_plan_is_named(
    field: tuple[Any, ...], value: Any, place_of_error: str, planned: Plan, tmp_path: Path
) -> None:
    content: Any = json.loads(to_json(planned))
    place = content
    for key in field[:-1]:
        place = place[key]
    place[field[-1]] = value
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(PlanError, match=rf"KD502: .*plan\.json: {place_of_error.replace('.', '[.]')}: "):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}'])
def test_a_file_that_is_no_plan_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanError, match="KD502"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(PlanError, match=r"KD502: .*cannot be read"):
        read_plan(tmp_path / "none.json")


def family(plan: Plan, **changed: Any) -> Plan:
    return replace(plan, families=(replace(plan.families[0], **changed),))


def route(plan: Plan, routing: str, name: str, shape: tuple[int, ...] = (12, 12, 3, 3)) -> Plan:
    return replace(plan, routes=(Route(routing, (Layer(name, "Conv2d", shape),)),))


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda p: family(p, members=("blocks.7.conv1",)), "KD503", "blocks.7.conv1, which this model does not have"),
        (lambda p: family(p, members=(*p.families[0].members, "stem")), "KD503", "cannot share between"),
        (lambda p: family(p, members=()), "KD503", "without members"),
        (lambda p: replace(p, families=p.families * 2), "KD503", "2 times"),
        (lambda p: family(p, options={}), "KD503", "no rank among its options"),
        (lambda p: family(p, options={"rank": 10_000}), "KD207", "the plan: options.rank: must be in 1.."),
        (lambda p: family(p, options={"rank": 4, "depth": 2}), "KD202", "no option 'depth'"),
        (lambda p: family(p, scheme="tensor-train"), "KD503", "no scheme 'tensor-train'"),
        (lambda p: route(p, "maze", "blocks.0.conv1"), "KD503", "no routing 'maze'"),
        (lambda p: route(p, "se", "blocks.7.conv1"), "KD503", "routes blocks.7.conv1, which this model does not have"),
        (lambda p: route(p, "se", "blocks.0.conv1", (1, 2)), "KD503", "another model"),
        (lambda p: replace(p, routes=(Route("se", ()),)), "KD503", "without layers"),
        (lambda p: replace(p, layers=(replace(p.layers[0], shape=(1, 2)),)), "KD503", "another model"),
    ],
)
def test_a_plan_that_does_not_fit_says_where(spoil: Any, code: str, message: str, planned: Plan) -> None:
    with pytest.raises(KdnaError, match=code) as caught:
        kdna_convert.plan(NET, recipe=recipe("cp"), plan=spoil(planned))
    assert message in caught.value.message


def test_a_plan_that_converts_what_the_recipe_leaves_out_says_so(planned: Plan) -> None:
    more = replace(planned.families[0], members=("fc",), options={"rank": 2})
    with pytest.raises(PlanError, match="KD503: the plan converts fc, which the recipe excludes; add it"):
        kdna_convert.convert(NET, recipe=recipe("cp"), plan=replace(planned, families=(more,)), data=IMAGES)


def test_a_database_of_many_families_with_hundreds_of_ranks_is_solved_to_the_last_rank() -> None:
    points = {1: 90.0, 60: 20.0, 120: 5.0, 250: 1.0, 400: 0.1}
    large = toy([{rank: error * (1 + place) for rank, error in points.items()} for place in range(50)])
    room = int(large.params * 0.9)
    plan = solve(large, PlanBudget("params", room))
    one_rank = 2 * (9 * 53 + 53)  # of the widest two layers
    assert room - one_rank < plan.planned.params <= room


def test_a_layout_resolves_to_its_tensors_and_drops_the_empty_ones() -> None:
    layout = Layout({"P": (4, 2)}, ({"A": (4, "residual_rank"), "f": (4,)},))
    tensors = stored_tensors(Family("kerneldna", ("a",), {"residual_rank": 0}), layout, "F16")
    assert tensors == [TensorSpec("a.P", (4, 2), "F16"), TensorSpec("a.f", (4,), "F16")]


class Pointwise(nn.Module):
    """Two parallel 1x1 layers, each reading eight of sixteen directions: the same eight, or eight apiece."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Linear(32, 4)
        self.a, self.b = nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 16, 1, bias=False)
        for layer, read in ((self.a, slice(8)), (self.b, slice(8) if alike else slice(8, 16))):
            kept = torch.zeros(16, 16, 1, 1)
            kept[:, read] = torch.randn(16, 8, 1, 1)
            layer.weight.data = kept

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3)))


@pytest.mark.parametrize("scheme", ["cp", "basis"])
def test_1x1_layers_share_only_where_they_gain(scheme: str) -> None:
    def families(alike: bool, **more: Any) -> list[tuple[str, ...]]:
        given = recipe(scheme, **more)
        plan = kdna_convert.plan(Pointwise(alike), recipe=given, data=IMAGES, target_params=0.75)
        return [family.members for family in plan.families]

    assert families(alike=True) == [("a", "b")]
    assert families(alike=False) == [("a",), ("b",)]
    assert families(alike=False, families={"by": "group"}) == [("a", "b")]
