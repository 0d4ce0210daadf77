"""Nets of every task go through all verbs; the task is named once; outputs and metrics of the user's own are used."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support import task_nets, tiny
from support.command import kdna as command
from torch import nn

import kdna_convert as kdna
from kdna_convert.api.finetune import hold
from kdna_convert.core.errors import DataError, GuardError, ModelError, RecipeError
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.stages.finetune.shared_regions import head_loss
from kdna_convert.tasks import TASKS, tensors_in

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(48)
RECIPE = parse_recipe(
    "scheme: cp\nrepair: [refit]\nfit: {sweeps: 3}\ncalibration: {images: 32, heldout: 16, batch: 16}\n"
)
FILE = task_nets.__file__
# Tasks that a net's outputs leave open.
NAMED = {"sequence": "sequence", "binary": "binary"}


def converted(kind: str, net: nn.Module, **more: Any) -> kdna.Conversion:
    arguments: dict[str, Any] = {"recipe": RECIPE, "data": IMAGES, "target_params": 0.6, "task": NAMED.get(kind)}
    return kdna.convert(net, **(arguments | more))


@pytest.mark.parametrize("task", task_nets.NETS)
def test_a_net_of_each_task_goes_through_all_verbs(task: str, tmp_path: Path) -> None:
    net = task_nets.net(task)
    conversion = converted(task, net)
    measured = conversion.report.divergence
    assert measured is not None
    assert measured.task == task
    assert 0 < measured.distance < 1
    (step,) = conversion.report.repair or ()
    assert step.after is not None
    assert step.kept == (step.judged[1] < step.judged[0])  # type: ignore[operator]

    folder = kdna.save(conversion, tmp_path / "net")
    derived, folded = (kdna.load(folder, model=copy.deepcopy(net), folded=form) for form in (False, True))
    with torch.no_grad():
        pairs = zip(tensors_in(derived(IMAGES[:2])), tensors_in(folded(IMAGES[:2])), strict=True)
        assert all(torch.allclose(own, other, atol=1e-4) for own, other in pairs)
    evaluation = kdna.evaluate(folder, data=IMAGES, model=net)
    assert evaluation.task == task  # without naming it again
    assert 0.3 < (evaluation.logit_error or 0) / measured.logit_error < 3  # on more images
    assert all(check.ok for check in kdna.verify(folder, data=IMAGES, model=net))

    tuned = kdna.finetune(folder, data=IMAGES, model=net, steps=12, batch_size=16, lr=1e-3)
    report = tuned.report.finetune
    assert report is not None
    assert report.after is not None
    assert report.after.distance <= report.before.distance  # type: ignore[union-attr]
    coded = kdna.code(conversion, data=IMAGES, model=net, target_bytes=0.2)
    assert coded.report.stages["code"].task == task
    smaller = kdna.shrink(folder, data=IMAGES, model=net, target_params=0.5)
    assert smaller.report.stages["shrink"].task == task


def test_a_box_head_is_verified_and_trained_on_the_regions_of_the_teacher(tmp_path: Path) -> None:
    net = task_nets.regions()
    recipe = parse_recipe("scheme: cp\nexclude: [backbone.*, rpn.*]\ncalibration: {images: 16, heldout: 8, batch: 8}\n")
    conversion = converted("detect", net, recipe=recipe, target_params=0.9)
    assert [family.members for family in conversion.plan.families] == [("roi_heads.box_head.0",)]
    kdna.save(conversion, tmp_path / "net")
    assert all(check.ok for check in kdna.verify(tmp_path / "net", model=net))
    tuned = kdna.finetune(conversion, data=IMAGES, model=net, steps=12, batch_size=16, lr=3e-3)
    heads = TASKS["detect"].heads(net)
    with torch.no_grad():
        before, after = (head_loss(own.model, net.eval(), heads, IMAGES) for own in (conversion, tuned))
    assert 0 < after < 0.95 * before


def test_labels_of_the_task_are_scored() -> None:
    net = task_nets.net("segment")
    with torch.no_grad():
        masks = net(IMAGES)["out"].argmax(1)
    evaluation = kdna.evaluate(net, data=[(IMAGES, masks)])
    assert evaluation.measures == {"miou": 1.0, "pixel_accuracy": 1.0}
    with pytest.raises(DataError, match=r"KD402: a mask of the output's size.*\(48, 16, 16\)"):
        kdna.evaluate(net, data=[(IMAGES, masks[:, :4])])
    with pytest.raises(DataError, match=r"KD402: one label per image"):
        kdna.evaluate(tiny.net(), data=[(IMAGES, masks)])
    detector = task_nets.net("detect")
    with torch.no_grad():
        targets = detector(IMAGES)
    assert kdna.evaluate(detector, data=[(IMAGES, targets)]).measures == {"map": 1.0, "map50": 1.0}


def test_a_drop_counts_the_measure_of_the_task() -> None:
    net = task_nets.net("segment")
    with torch.no_grad():
        masks = net(IMAGES)["out"].argmax(1)
    for data, by in ((IMAGES, "mIoU"), ([(IMAGES, masks)], "mIoU")):
        report = converted("segment", net, data=data, target_params=None, max_drop=60.0).report.max_drop
        assert report is not None
        assert report.by == by
        assert all(0 <= trial.drop <= 100 for trial in report.trials)
    with pytest.raises(ModelError, match=r"KD308: max_drop counts answers, and the task image has none; pass labels"):
        converted("image", task_nets.net("image"), target_params=None, max_drop=1.0)


def test_what_is_ambiguous_is_refused_before_the_work_with_the_commands_that_are_right() -> None:
    net = task_nets.net("sequence")
    for verb in (lambda: converted("raw", net), lambda: kdna.evaluate(net, data=IMAGES)):
        with pytest.raises(ModelError, match=r"KD313: .*\(1, 12, 8\).*--task sequence or --task raw"):
            verb()
    assert converted("raw", net, data=None).report.divergence is None  # nothing is measured


def test_a_teacher_has_the_task_that_the_folder_names() -> None:
    net = task_nets.net("sequence")
    tuned = kdna.finetune(
        converted("sequence", net), data=IMAGES, model=net, teacher=task_nets.net("sequence", 1), steps=1, batch_size=16
    )
    assert tuned.report.finetune is not None
    assert tuned.report.finetune.after is not None
    assert tuned.report.finetune.after.task == "sequence"


def test_another_task_than_the_outputs_have_is_refused() -> None:
    with pytest.raises(ModelError, match=r"KD308: segment needs logits .*choose another --task"):
        converted("raw", tiny.net(), task="segment")
    with pytest.raises(RecipeError, match=r"KD203: task: there is no task 'sorting'"):
        kdna.evaluate(tiny.net(), data=IMAGES, task="sorting")


def test_the_users_function_picks_the_outputs(tmp_path: Path) -> None:
    net = task_nets.net("raw")
    assert kdna.evaluate(net, data=IMAGES, outputs=task_nets.first).task == "classify"
    assert kdna.evaluate(net, data=IMAGES, outputs=f"{FILE}:second", task="embed").task == "embed"
    conversion = converted("raw", net, outputs=f"{FILE}:first")
    assert conversion.report.divergence is not None
    assert conversion.report.divergence.task == "classify"
    folder = kdna.save(conversion, tmp_path / "net")
    assert "task_nets" not in (folder / "recipe.yaml").read_text()  # code is not recorded
    assert kdna.evaluate(folder, data=IMAGES, model=net).task == "raw"
    with pytest.raises(ModelError, match=r"KD314: --outputs broken: KeyError: 'nothing'"):
        kdna.evaluate(net, data=IMAGES, outputs=task_nets.broken)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("nowhere.py:metric", "no such file"),
        (f"{FILE}:absent", "has no attribute 'absent'"),
        (f"{FILE}:NETS", "is a dict, not a function"),
        (f"{FILE}:undefined", "returned nan; it must return a finite number"),
        (f"{FILE}:raising", "RuntimeError: no labels"),
        ("timm:resnet18", "write it as file.py:function"),
    ],
)
def test_a_metric_that_cannot_be_used_is_kd314(given: str, reason: str) -> None:
    with pytest.raises(ModelError, match="KD314") as refused:
        kdna.evaluate(tiny.net(), data=IMAGES, metric=given)
    assert reason in refused.value.message


def test_the_users_metric_is_measured_and_guards() -> None:
    net = tiny.net_with_statistics()
    metric = f"{FILE}:mean_output"
    whole = kdna.evaluate(net, data=IMAGES, metric=metric).measures["metric"]
    with torch.no_grad():
        assert whole == pytest.approx(task_nets.mean_output(net.eval(), [(IMAGES, None)]), rel=1e-5)
    found = converted("classify", net, target_params=None, max_drop=0.5, metric=task_nets.mean_output).report.max_drop
    assert found is not None
    assert found.by == "metric"
    points = kdna.curve(net, recipe=RECIPE, data=IMAGES, shares=[0.6], measure=True, metric=metric).points
    assert points[0].measured is not None
    assert points[0].measured.measures["metric"] == pytest.approx(whole, abs=3)
    tuned = kdna.finetune(converted("classify", net), data=IMAGES, model=net, steps=2, batch_size=16, metric=metric)
    report = tuned.report.finetune
    assert report is not None
    assert report.after is not None
    lost = (report.teacher_metric or 0) - report.after.measures["metric"]
    hold(tuned, lost + 1e-6)
    with pytest.raises(GuardError, match=r"KD801: the metric is .* lower than the teacher's"):
        hold(tuned, lost - 1e-6)


def test_the_commands_name_the_task_first(images: Path, tmp_path: Path) -> None:
    folder, data = images, tmp_path / "net"
    net = f"{FILE}:speller"
    refused = command("convert", net, "--data", folder, "--target-params", "0.6", "-o", data)
    assert refused.exit_code == 2
    assert "KD313" in refused.stderr
    set_ = [part for key in ("calibration.heldout=8", "fit.sweeps=2", "repair=[]") for part in ("--set", key)]
    done = command("convert", net, "--data", folder, "--target-params", "0.6", "--task", "sequence", *set_, "-o", data)
    assert done.exit_code == 0, done.stderr
    assert "task: sequence" in done.stdout
    seen = command("eval", data, "--trust-code", "--data", folder)
    assert seen.exit_code == 0, seen.stderr
    assert seen.stdout.splitlines()[1].split() == ["task", "sequence"]
    upscaled = command("eval", f"{FILE}:upscaler", "--data", f"{folder}::x2", "--metric", f"{FILE}:mean_output")
    assert upscaled.exit_code == 0, upscaled.stderr
    assert [name for name in ("PSNR", "SSIM", "metric") if name in upscaled.stdout] == ["PSNR", "SSIM", "metric"]
