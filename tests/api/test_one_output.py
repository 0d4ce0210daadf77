"""A net with one output: class measures are not defined; repair and fine-tune go by the logit error."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.terminal import printed
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.cli.report.convert import conversion_report
from kdna_convert.cli.report.evaluate import evaluation_table
from kdna_convert.core.errors import ModelError
from kdna_convert.core.measurements import Divergence
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.tasks import TASKS

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(48)
REGRESS = TASKS["regress"]


class Regression(tiny.Net):
    """One number for every image, as a column or without its axis."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.fc, self.flat = nn.Linear(12, 1), flat

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten() if self.flat else super().forward(x)


def regression(flat: bool = False) -> Regression:
    torch.manual_seed(0)
    net = Regression(flat)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def converted(net: nn.Module, repair: tuple[str, ...] = ("refit",), **more: Any) -> kdna.Conversion:
    recipe = Recipe(scheme="cp", repair=repair, fit={"sweeps": 3})  # type: ignore[arg-type]
    return kdna.convert(net, recipe=recipe, data=IMAGES, **{"target_params": 0.5, **more})


def test_only_the_logit_error_is_defined() -> None:
    z0 = torch.tensor([[1.0], [-2.0]])
    measured = divergence((z0 + 1,), (z0,), REGRESS)
    assert measured == Divergence(None, None, 2 / 5, 2, task="regress")
    assert measured.distance == 2 / 5
    assert outputs_of(regression(flat=True), [IMAGES], REGRESS)[0].shape == (48, 1)


@pytest.mark.parametrize("flat", [False, True])
def test_a_repair_is_judged_by_the_logit_error(flat: bool) -> None:
    conversion = converted(regression(flat))
    (step,) = conversion.report.repair or ()
    assert step.after is not None
    assert step.kept == (step.judged[1] < step.judged[0])  # type: ignore[operator]
    assert step.kept
    assert step.after.logit_error < step.before.logit_error
    assert (step.after.agreement, step.after.kl) == (None, None)


def test_reports_say_so_and_never_a_hundred_percent(tmp_path: Path) -> None:
    conversion = converted(regression())
    kdna.save(conversion, tmp_path / "net")
    text = printed(conversion_report(kdna.open_folder(tmp_path / "net", model=regression())))
    seen = kdna.evaluate(conversion, data=(IMAGES,), model=regression())
    assert (seen.agreement, seen.kl, seen.top1) == (None, None, None)
    assert seen.logit_error is not None
    for report in (text[text.index("task: ") :], printed(evaluation_table(seen))):
        assert "regress" in report
        assert "agreement" not in report
        assert "KL" not in report
    assert "None" not in (tmp_path / "net" / "README.md").read_text()


def test_a_fine_tune_lowers_the_logit_error() -> None:
    net = regression()
    before = converted(net, (), target_params=0.3)
    tuned = kdna.finetune(before, data=IMAGES, model=net, steps=30, lr=1e-3, batch_size=16)
    done = tuned.report.finetune
    assert done is not None
    assert done.kept
    assert done.after.logit_error < done.before.logit_error  # type: ignore[union-attr]


def test_a_limit_on_changed_answers_is_refused() -> None:
    with pytest.raises(ModelError, match=r"KD308.*regress.*--metric"):
        converted(regression(), target_params=None, max_drop=1.0)
