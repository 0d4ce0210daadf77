"""From a net's name to a folder and back, for nets of timm, of torchvision and of a user."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import tiny
from support.command import NET
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.api.job import DATA_FREE_NOTE
from kdna_convert.core.errors import DataError, KdnaError, ModelError, NumericsError, PlanError
from kdna_convert.inputs.models import factory_note, load_model, state_digest
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.folder import verify
from kdna_convert.network.folder.report import CalibrationReport
from kdna_convert.routing import routers
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.export import EXPORTS, write_export

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(24)


def recipe(scheme: str = "cp", **more: Any) -> Recipe:
    return Recipe(scheme=scheme, **{"fit": {"sweeps": 3}, **more})  # type: ignore[arg-type]


class Lines(nn.Module):
    """A net of 1d convolutions, as for audio."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 8, 5, stride=2, padding=2)
        self.body = nn.Sequential(*(nn.Conv1d(8, 8, 3, padding=2**i, dilation=2**i) for i in range(3)))
        self.grouped = nn.Sequential(*(nn.Conv1d(8, 8, 3, padding=1, groups=2) for _ in range(2)))
        self.head = nn.Linear(8, 4)
        self.pretrained_cfg = {"input_size": (1, 40), "mean": (0.0,), "std": (1.0,)}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.body(self.stem(x).relu()).relu()).mean(2))


def lines() -> nn.Module:
    torch.manual_seed(0)
    return Lines()


# MODEL, scheme, side of the input (None: the net's own), share of the parameters to keep
ZOO = [
    ("test_resnet", "cp", 32, 0.7),
    ("test_resnet", "kerneldna", 32, 0.95),
    ("test_efficientnet", "lowrank", 32, 0.8),
    ("test_convnext", "basis", 32, 0.8),
    ("test_nfnet", "cp", 32, 0.8),  # weight-standardized convolutions
    ("torchvision:squeezenet1_1", "basis", 64, 0.7),
    (f"{Path(__file__)}:lines", "cp", None, 0.8),
]


@pytest.mark.parametrize(
    ("name", "scheme", "side", "share"), ZOO, ids=[f"{row[0].split('/')[-1]}-{row[1]}" for row in ZOO]
)
def test_a_converted_net_survives_a_folder_and_loads_into_the_original_model(
    name: str, scheme: str, side: int | None, share: float, tmp_path: Path
) -> None:
    """convert -> save -> load -> the same logits -> merged -> strict load into the original architecture."""
    size = (1, 40) if side is None else (3, side, side)
    x = torch.randn((6, *size), generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = load_model(name, pretrained=False).model
    save_file(original.state_dict(), tmp_path / "random.safetensors")
    conversion = kdna.convert(
        name,
        checkpoint=str(tmp_path / "random.safetensors"),
        inputs={"input_size": size} if side else None,
        recipe=recipe(scheme, include=("type:Linear",) if "convnext" in name else (), fit={"sweeps": 1}),
        data=x,
        target_params=share,
    )
    assert conversion.plan.families
    assert conversion.plan.planned.params <= share * conversion.plan.original.params
    folder = kdna.save(conversion, tmp_path / "out")
    assert all(check.ok for check in verify(folder))
    assert (folder / "model.safetensors").stat().st_size == conversion.plan.planned.bytes
    loaded, z = kdna.load(folder), outputs_of(conversion.model, [x])
    assert torch.equal(outputs_of(loaded, [x])[0], z[0])
    merged = write_export(EXPORTS["merged"], conversion, tmp_path / "merged.safetensors").file
    original.load_state_dict(load_file(merged), strict=True)
    torch.testing.assert_close(outputs_of(original, [x]), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", ["name", "module"])
def test_the_original_is_left_untouched(given: str) -> None:
    net = tiny.net().train()
    digest, hooks = state_digest(net), [len(module._forward_hooks) for module in net.modules()]
    conversion = kdna.convert(NET if given == "name" else net, recipe=recipe(), data=IMAGES, target_params=0.7)
    assert state_digest(net) == digest
    assert all(module.training for module in net.modules())
    assert not any(module.training for module in conversion.model.modules())
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())


def test_a_half_precision_module_is_converted_in_single_precision() -> None:
    net = tiny.net().half()
    conversion = kdna.convert(net, recipe=recipe(), data=IMAGES, target_params=0.7)
    assert {p.dtype for p in net.parameters()} == {torch.float16}
    assert {p.dtype for p in conversion.model.parameters()} == {torch.float32}


def test_the_same_call_gives_the_same_bits(tmp_path: Path) -> None:
    """The file to the byte, whatever the global random state."""
    files = []
    for run in range(2):
        torch.manual_seed(run)
        conversion = kdna.convert(NET, recipe=recipe(), data=IMAGES, target_params=0.7)
        files.append((kdna.save(conversion, tmp_path / str(run)) / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_divergence_falls_with_the_budget() -> None:
    divergences = []
    for share in (0.35, 0.6, 0.9):
        rules = recipe(fit={"sweeps": 20})
        divergences.append(kdna.convert(NET, recipe=rules, data=IMAGES, target_params=share).report.divergence)
    assert divergences[0].logit_error > divergences[1].logit_error > divergences[2].logit_error
    assert {one.images for one in divergences} == {8}, "a third of few images is held out"


def test_the_report_says_what_was_done() -> None:
    steps: list[tuple[str, int, int]] = []
    conversion = kdna.convert(
        NET, recipe=recipe(), data=IMAGES, target_params=0.7, progress=lambda *step: steps.append(step)
    )
    report = conversion.report
    assert report.stages["convert"] == report.divergence
    assert report.calibration == CalibrationReport(16, ())
    (family,) = report.families
    assert set(family.errors) == set(conversion.plan.families[0].members)
    doing = [step[0] for step in steps]
    assert {"load the model", "calibrate", "fit"} < set(doing)
    assert any(line.startswith("fit: blocks.0.conv1") for line in doing)


def test_an_untrained_routing_changes_no_output() -> None:
    rules: dict[str, Any] = {"options": {"rank": 8}}
    plain, routed = (
        kdna.convert(NET, recipe=recipe(**rules, routing=routing), data=IMAGES).model
        for routing in ("none", {"name": "se", "width": 3})
    )
    assert len(routers(routed)) == 4
    assert not routers(plain)
    assert torch.equal(outputs_of(routed, [IMAGES])[0], outputs_of(plain, [IMAGES])[0])


def test_a_plan_lists_the_layers_that_its_routing_skips(tmp_path: Path) -> None:
    routed = recipe("dense", routing="cond", include=["fc"])
    planned = kdna.plan(NET, recipe=routed, data=IMAGES, database=tmp_path / "database.json")
    assert planned.unrouted == {"fc": "KD131"}
    assert kdna.plan(NET, recipe=routed, data=IMAGES, database=tmp_path / "database.json") == planned
    assert kdna.plan(NET, recipe=routed, data=IMAGES, plan=planned).unrouted == planned.unrouted
    conversion = kdna.convert(NET, recipe=routed, data=IMAGES, database=tmp_path / "database.json")
    assert "routing skips 1 unsupported layer (KD131: fc)" in conversion.report.notes


def test_kerneldna_chooses_its_start_by_the_held_back_images() -> None:
    tried = {}
    for start in ("tie", "lstsq", "norm", "best"):
        rules = recipe("kerneldna", options={"start": start})
        conversion = kdna.convert(NET, recipe=rules, data=IMAGES)
        tried[start] = conversion.report.divergence.kl, conversion.report.families[0].start
    assert tried["best"] == min(tried[start] for start in ("tie", "lstsq", "norm"))


def test_without_images_a_note_says_what_that_costs() -> None:
    conversion = kdna.convert(NET, recipe=recipe(), target_params=0.7)
    assert conversion.report.notes == (DATA_FREE_NOTE, factory_note(NET, None))
    assert conversion.report.divergence is None
    assert conversion.report.calibration.images == 0


def test_data_free_uses_images_only_to_measure() -> None:
    conversion = kdna.convert(NET, recipe=recipe(), data=IMAGES, data_free=True, target_params=0.7)
    blind = kdna.convert(NET, recipe=recipe(), target_params=0.7)
    assert conversion.report.notes == (DATA_FREE_NOTE, factory_note(NET, None))
    assert conversion.report.divergence.images == 8
    assert state_digest(conversion.model) == state_digest(blind.model)


def test_a_fit_with_images_is_closer_than_one_without() -> None:
    """On inputs of which one channel is nearly dark, knowing so beats guessing."""
    skewed = torch.randn((90, 3, 16, 16), generator=torch.Generator().manual_seed(2)) * torch.tensor([3, 1, 0.1]).view(
        3, 1, 1
    )
    rules = recipe("lowrank", options={"rank": 4})
    errors = [
        kdna.convert(NET, recipe=rules, data=skewed, data_free=free).report.divergence.logit_error
        for free in (False, True)
    ]
    assert errors[0] < errors[1]


def test_moments_are_collected_once_and_read_afterwards(tmp_path: Path) -> None:
    stages: tuple[list[str], list[str]] = ([], [])
    first, again = (
        kdna.convert(
            NET,
            recipe=recipe(options={"rank": 8}),
            data=IMAGES,
            moments=tmp_path / "moments.safetensors",
            progress=lambda doing, *_, reported=reported: reported.append(doing),
        )
        for reported in stages
    )
    assert ["calibrate" in reported for reported in stages] == [True, False]
    assert state_digest(first.model) == state_digest(again.model)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model": tiny.net(8)}, "another model"),
        ({"data": IMAGES + 1}, "other data"),
        ({"data": IMAGES[:20]}, "other data"),
        ({"data_free": True}, "other data and other settings"),
        ({"inputs": {"crop_pct": 0.5}}, "other settings"),
    ],
    ids=["model", "images", "fewer images", "no images", "inputs"],
)
def test_moments_of_something_else_are_refused(changed: dict[str, Any], why: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": NET, "recipe": recipe(), "data": IMAGES, "target_params": 0.7}
    given["moments"] = tmp_path / "moments.safetensors"
    kdna.convert(**given)
    with pytest.raises(PlanError, match=f"KD505: .* was made from {why}"):
        kdna.convert(**{**given, **changed})


def test_families_by_cluster_hold_the_layers_that_are_alike() -> None:
    net = tiny.net()
    kernels = [getattr(net.blocks[block], conv).weight for block in (0, 1) for conv in ("conv1", "conv2")]
    with torch.no_grad():
        kernels[3].copy_(kernels[0] + 0.01)
        kernels[2].copy_(kernels[1] + 0.01)

    def families(**more: Any) -> list[tuple[str, ...]]:
        plan = kdna.plan(net, recipe=recipe("basis", options={"rank": 4}, families=more), data=IMAGES)
        return [family.members for family in plan.families]

    first, second = ("blocks.0.conv1", "blocks.1.conv2"), ("blocks.0.conv2", "blocks.1.conv1")
    assert families(by="cluster", metric="cosine", count=2) == [first, second]
    assert families(by="group") == [tuple(sorted(first + second))]


def test_a_rules_own_family_stays_together_and_the_rest_apart() -> None:
    rules = ({"layers": "blocks.*.conv1", "family": "together"},)
    plan = kdna.plan(NET, recipe=recipe("basis", options={"rank": 4}, rules=rules), data=IMAGES)
    assert [family.members for family in plan.families] == [
        ("blocks.0.conv1", "blocks.1.conv1"),
        ("blocks.0.conv2", "blocks.1.conv2"),
    ]


def test_a_family_that_cannot_share_is_refused() -> None:
    rules = ({"layers": ["stem", "blocks.0.conv1"], "family": "together"},)
    with pytest.raises(KdnaError, match=r"KD203: rules\.0\.family: .*cannot share between stem"):
        kdna.plan(NET, recipe=recipe("basis", options={"rank": 2}, rules=rules), data=IMAGES)


def test_analyze_names_groups_that_share_and_layers_that_are_alone() -> None:
    analysis = kdna.analyze(NET, recipe=recipe(), data=IMAGES)
    (group,) = analysis.groups
    assert len(group.members) == 4
    assert {layer.name: layer.reason for layer in analysis.layers}["stem"] == "KD101"


@pytest.mark.parametrize("sick", ["sick_weight", "sick_activation"])
def test_a_sick_net_is_an_error_that_names_the_layer(sick: str) -> None:
    with pytest.raises(NumericsError, match=r"KD70[12]: blocks\.1"):
        kdna.convert(f"{Path(tiny.__file__)}:{sick}", recipe=recipe(), data=IMAGES, target_params=0.7)


def test_a_net_without_a_layer_to_convert_says_so() -> None:
    with pytest.raises(ModelError, match="KD306"):
        kdna.convert(f"{Path(tiny.__file__)}:nothing_to_convert", recipe=recipe(), data=IMAGES, target_params=0.7)


def test_moments_without_memory_leave_a_layer_out_and_name_it() -> None:
    conversion = kdna.convert(NET, recipe=recipe(calibration={"memory": 2_000}), data=IMAGES, target_params=0.9)
    left = [layer.name for layer in conversion.plan.layers if layer.reason == "KD108"]
    (note,) = [note for note in conversion.report.notes if "KD108" in note]
    assert left
    assert left[0] in note
    assert "--moments-memory" in note


def test_layers_that_keep_factors_of_their_moments_are_named() -> None:
    conversion = kdna.convert(NET, recipe=recipe(calibration={"memory": 20_000}), data=IMAGES, target_params=0.7)
    (note,) = [note for note in conversion.report.notes if "two factors" in note]
    assert "blocks.1" in note
    plain = kdna.convert(NET, recipe=recipe(), data=IMAGES, target_params=0.7)
    assert not any("two factors" in note for note in plain.report.notes)


def test_a_converted_folder_or_missing_data_is_refused(tmp_path: Path) -> None:
    conversion = kdna.convert(NET, recipe=recipe(options={"rank": 8}), data=IMAGES)
    folder = kdna.save(conversion, tmp_path / "out")
    with pytest.raises(ModelError, match="KD302"):
        kdna.convert(folder, recipe=recipe(), data=IMAGES)
    with pytest.raises(DataError, match="KD401"):
        kdna.convert(NET, recipe=recipe(options={"rank": 8}), data=IMAGES[:0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'momets'"):
        kdna.convert(NET, recipe=recipe(), data=IMAGES, momets="x")


def test_one_image_is_enough_to_convert_and_gives_a_note() -> None:
    conversion = kdna.convert(NET, recipe=recipe(options={"rank": 8}), data=IMAGES[:1])
    assert conversion.report.divergence is None
    assert any("1 calibration images are few" in note for note in conversion.report.notes)
    assert conversion.model(IMAGES).isfinite().all()


@pytest.mark.parametrize("side", [8, 16])
def test_images_smaller_than_the_input_are_enlarged_with_a_note(tmp_path: Path, side: int) -> None:
    for number in range(4):
        Image.new("RGB", (2 * side, side), (40 * number, 90, 30)).save(tmp_path / f"{number}.png")
    conversion = kdna.convert(NET, recipe=recipe(options={"rank": 8}), data=tmp_path)
    told = [note for note in conversion.report.notes if "were enlarged" in note]
    assert bool(told) == (side == 8)
    assert all("are smaller than the net's input of 16x16 pixels" in note for note in told)


def test_evaluating_a_conversion_measures_it_against_its_original(tmp_path: Path) -> None:
    conversion = kdna.convert(NET, recipe=recipe(options={"rank": 8}), data=IMAGES)
    evaluation = kdna.evaluate(conversion, data=IMAGES)
    assert evaluation.images == len(IMAGES)
    assert evaluation.params == conversion.plan.planned.params
    assert evaluation.bytes == conversion.plan.planned.bytes
    z0 = outputs_of(copy.deepcopy(conversion.model), [IMAGES])
    assert divergence(z0, outputs_of(conversion.model, [IMAGES])).kl == 0
