"""The verb `demo`: all stages on the bundled net and its data, in under a minute.

Analyze, plan for a quarter of the parameters, convert, fine-tune the adapters, save, verify, time, evaluate. All
stages before the evaluation use the training images without labels. Accuracy is measured on the test images.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core.errors import FolderError
from ..core.measurements import Analysis, Divergence
from ..core.progress import as_progress
from ..core.specs import Plan, Progress, Totals, required
from ..inputs.digits import WEIGHTS, digits
from ..inputs.models import load_model
from ..inputs.recipe import load_recipe
from ..network.derive import factor, fold
from ..network.folder import Check, Conversion, save, verify
from ..stages.evaluate.accuracy import evaluate
from ..stages.evaluate.timing import benchmark
from .analyze import analyze
from .convert import convert
from .finetune import finetune
from .plan import plan

MODEL = "kdna_convert.inputs.digits:digits_net"
RECIPE = ("shared-cp", ["calibration.images=800", "calibration.heldout=400"])  # of 1,257
KEEP = 0.25  # of the net's parameters
EPOCHS = 10
BATCH = 64  # images in a timed batch


@dataclass(frozen=True)
class DemoRow:
    """The four numbers of one net and its test accuracy. `ms` is the median of a batch of 64, `macs` are per image."""

    name: str
    params: int
    bytes: int
    macs: int
    ms: float
    accuracy: float


@dataclass(frozen=True)
class Demo:
    """The results of a demo.

    `divergence`, before and after the fine-tune, is on images that it was not trained on. `folder` is the folder of the
    conversion, None if it was not kept. `seconds` does not include Python's imports.
    """

    analysis: Analysis
    plan: Plan
    divergence: dict[str, Divergence]
    rows: tuple[DemoRow, ...]
    checks: tuple[Check, ...]
    seconds: float
    folder: str | None


def run(output: str | Path | None = None, *, progress: Progress | bool | None = None) -> Demo:
    """Run all stages and return the results; with `output`, keep the converted folder there.

    Raises FolderError KD601 if `output` exists already.
    """
    progress = as_progress(progress)
    began = time.perf_counter()
    if output is not None and Path(output).exists():
        raise FolderError("KD601", f"{output} exists already; choose another place")
    with tempfile.TemporaryDirectory() as scratch:
        moments = Path(scratch) / "moments.safetensors"
        given: dict[str, Any] = {"checkpoint": str(WEIGHTS), "recipe": load_recipe(*RECIPE), "moments": moments}
        images = digits("train")[0]
        analysis = analyze(MODEL, data=images, progress=progress, **given)
        planned = plan(MODEL, data=images, target_params=KEEP, progress=progress, **given)
        before = convert(MODEL, data=images, plan=planned, progress=progress, **given)
        after = finetune(before, data=images, epochs=EPOCHS, progress=progress)
        checks = verify(save(after, Path(scratch) / "digits" if output is None else output))
    tuned = required(after.report.finetune)
    return Demo(
        analysis=analysis,
        plan=planned,
        divergence={"converted": required(tuned.before), "fine-tuned": required(tuned.after)},
        rows=_rows(_nets(before, after), digits("test"), progress),
        checks=checks,
        seconds=time.perf_counter() - began,
        folder=None if output is None else str(output),
    )


def _nets(before: Conversion, after: Conversion) -> dict[str, tuple[nn.Module, Totals]]:
    """Every net of the table in the form in which it runs, and the size of its file."""
    original, stored = before.plan.original, before.plan.planned
    folded = replace(stored, macs=original.macs)
    return {
        "original": (load_model(MODEL, checkpoint=str(WEIGHTS)).model, original),
        "converted": (fold(copy.deepcopy(before.model)), folded),
        "fine-tuned": (fold(copy.deepcopy(after.model)), folded),
        "fine-tuned, factored": (factor(copy.deepcopy(after.model)), stored),
    }


def _rows(
    nets: Mapping[str, tuple[nn.Module, Totals]], test: tuple[Tensor, Tensor], progress: Progress | None
) -> tuple[DemoRow, ...]:
    """Time every net in turns, and evaluate it on the test images."""
    timings = benchmark({name: net for name, (net, _) in nets.items()}, test[0][:BATCH], progress=progress)
    return tuple(
        DemoRow(
            name=timing.name,
            params=cost.params,
            bytes=cost.bytes,
            macs=cost.macs,
            ms=timing.ms,
            accuracy=evaluate(net, [test], require_labels=True).top1 or 0.0,
        )
        for timing, (net, cost) in zip(timings, nets.values(), strict=True)
    )
