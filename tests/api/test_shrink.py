"""`kdna shrink`: a converted folder is cut to a smaller size, or refused with the reason."""

import json
from pathlib import Path

import pytest
import torch
from support.command import FEW_IMAGES, NET, kdna
from support.tiny import SIZE

import kdna_convert
from kdna_convert.core.errors import PlanError
from kdna_convert.network.folder import open_folder
from kdna_convert.network.folder.report import to_plain

FEW = (*FEW_IMAGES, "--set", "fit.sweeps=10")


def made(images: Path, out: Path, *options: str) -> Path:
    recipe = () if "--recipe" in options else ("--recipe", "shared-cp")
    done = kdna("convert", NET, "--data", images, *recipe, *FEW, *options, "-o", out)
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(images, tmp_path_factory.mktemp("plain") / "out", "--target-params", "0.6")


@pytest.fixture(scope="module")
def nested(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(images, tmp_path_factory.mktemp("nested") / "out", "--target-params", "0.6", "--set", "nested=true")


def test_a_nested_net_computes_the_same(plain: Path, nested: Path) -> None:
    image = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (kdna_convert.load(folder)(image) for folder in (plain, nested))
    assert torch.allclose(one, other, atol=1e-5)
    weights = [kdna_convert.load(folder).blocks[0].conv1.parametrizations.weight[0] for folder in (plain, nested)]
    assert not torch.equal(weights[0].shared["V"], weights[1].shared["V"])


def test_a_nested_plan_says_what_every_size_costs(plain: Path, nested: Path) -> None:
    assert open_folder(plain).plan.nested == {}
    plan = open_folder(nested).plan
    assert plan.families
    for family in plan.families:
        curve = plan.nested[family.members[0]]
        assert len(curve) == family.options["rank"]
        assert sorted(curve, reverse=True) == list(curve)


@pytest.mark.parametrize("source", ["plain", "nested"])
@pytest.mark.parametrize("seen", [True, False], ids=["data", "no data"])
def test_a_shrunk_folder_meets_its_budget_and_verifies(
    source: str, seen: bool, images: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, out = request.getfixturevalue(source), tmp_path / "small"
    data = ["--data", images] if seen else []
    done = kdna("shrink", folder, *data, "--target-params", "0.4", "-o", out)
    assert done.exit_code == 0, done.stderr
    assert ("no images" in done.stderr) == (not seen)
    assert ("nested: true" in done.stderr) == (not seen and source == "plain")
    plan = open_folder(out).plan
    one_more = sum(plan.stored[family.members[0]] // family.options["rank"] for family in plan.families)
    allowed = int(0.4 * plan.original.params)
    assert allowed - one_more < plan.planned.params <= allowed
    assert bool(plan.nested) == (seen or source == "nested")
    assert kdna("verify", out).exit_code == 0
    assert kdna("eval", out, "--data", images).exit_code == 0


def test_shrinking_a_nested_folder_keeps_its_leading_directions(nested: Path) -> None:
    before, after = open_folder(nested), kdna_convert.shrink(nested, target_params=0.4)
    whole, part = (c.model.blocks[0].conv1.parametrizations.weight[0] for c in (before, after))
    size = after.plan.families[0].options["rank"]
    assert size < before.plan.families[0].options["rank"]
    assert torch.equal(part.shared["V"], whole.shared["V"][:size])
    assert torch.equal(part.adapter["b"], whole.adapter["b"][:size])


def test_a_nested_basis_is_cut_without_a_new_fit(images: Path, tmp_path: Path) -> None:
    folder = made(
        images, tmp_path / "out", "--recipe", "shared-basis", "--target-params", "0.6", "--set", "nested=true"
    )
    before, after = open_folder(folder), kdna_convert.shrink(folder, target_params=0.4)
    whole, part = (c.model.blocks[1].conv2.parametrizations.weight[0] for c in (before, after))
    size = after.plan.families[0].options["rank"]
    assert torch.equal(part.adapter["U"], whole.adapter["U"][:, :size])


@pytest.mark.parametrize(("goal", "kind"), [({"target_bytes": "7kB"}, "bytes"), ({"target_macs": 0.5}, "macs")])
def test_bytes_and_macs_are_budgets_too(goal: dict[str, object], kind: str, nested: Path) -> None:
    plan = kdna_convert.shrink(nested, **goal).plan
    allowed = 7000 if kind == "bytes" else plan.original.macs // 2
    assert getattr(plan.planned, kind) <= allowed < getattr(open_folder(nested).plan.planned, kind)


def test_a_shrunk_folder_can_be_shrunk_again(images: Path, nested: Path) -> None:
    once = kdna_convert.shrink(nested, target_params=0.45, data=images)
    twice = kdna_convert.shrink(once, target_params=0.35)
    assert twice.plan.planned.params <= 0.35 * twice.plan.original.params
    assert {owner: len(curve) for owner, curve in twice.plan.nested.items()} == {
        family.members[0]: family.options["rank"] for family in twice.plan.families
    }


def test_the_recipes_repair_runs_after_shrinking_and_is_reported(images: Path, tmp_path: Path) -> None:
    folder = made(images, tmp_path / "out", "--target-params", "0.6", "--set", "repair=[refit]")
    report = kdna_convert.shrink(folder, target_params=0.4, data=images).report
    assert [one.step for one in report.shrink.repair] == ["refit"]
    assert report.divergence == report.stages["shrink"]
    assert "families" not in to_plain(report)


def test_a_coded_folder_is_shrunk_to_plain_tensors(nested: Path, tmp_path: Path) -> None:
    assert kdna("code", nested, "--codec", "int8", "-o", tmp_path / "coded").exit_code == 0
    done = kdna("shrink", tmp_path / "coded", "--target-params", "0.4", "--json", "-o", tmp_path / "small")
    assert done.exit_code == 0, done.stderr
    assert "code" not in json.loads(done.stdout)
    assert kdna("verify", tmp_path / "small").exit_code == 0


def test_a_family_without_directions_keeps_its_size(images: Path, tmp_path: Path) -> None:
    text = "scheme: cp\nnested: true\nrules:\n- {layers: 'blocks.1.*', scheme: atoms}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    folder = made(images, tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml"), "--target-params", "0.7")
    before = {family.scheme: family for family in open_folder(folder).plan.families}
    assert "KD116" in str(open_folder(folder).report.notes)
    plan = kdna_convert.shrink(folder, target_params=0.6).plan
    after = {family.scheme: family for family in plan.families}
    assert after["atoms"] == before["atoms"]
    assert after["cp"].options["rank"] < before["cp"].options["rank"]


@pytest.mark.parametrize(
    ("goal", "code", "says"),
    [
        ({}, "KD504", "--target-params"),
        ({"target_params": 0.9}, "KD509", "no more than"),
        ({"target_params": 0.001}, "KD501", "cannot be met"),
        ({"target_params": 0.4, "target_macs": 0.4}, "KD506", "one budget"),
        ({"target_bytes": "many"}, "KD506", "not a size"),
    ],
)
def test_an_impossible_budget_is_refused_before_the_data_is_read(
    goal: dict[str, object], code: str, says: str, nested: Path
) -> None:
    with pytest.raises(PlanError, match=says) as raised:
        kdna_convert.shrink(nested, **goal, data="no/such/folder")
    assert raised.value.code == code


def test_a_folder_without_a_cuttable_family_is_refused(images: Path, tmp_path: Path) -> None:
    folder = made(images, tmp_path / "out", "--scheme", "atoms", "--target-params", "0.7")
    done = kdna("shrink", folder, "--target-params", "0.4", "-o", tmp_path / "small")
    assert (done.exit_code, "KD507" in done.stderr, "atoms" in done.stderr) == (2, True, True)
    assert not (tmp_path / "small").exists()
