"""Take nets of other tasks through every command, with random weights and small inputs, and record what came of it.

    python benchmarks/task_nets.py                     # all nets; goes on where a stopped run left off
    python benchmarks/task_nets.py --only fcn          # nets whose names contain this text
    python benchmarks/task_nets.py --again             # measure nets that the file has; it keeps both

Each net runs in a process of its own: analyze, plan, convert with a repair step, save and load, folded equals derived,
verify, eval, a few fine-tune steps, code, export. Every stage appends one line to benchmarks/results/task_nets.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from commands import Row, append, rows, table
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.errors import KdnaError
from kdna_convert.inputs.models import fit_weights, load_model, read_state_dict
from kdna_convert.inputs.recipe import Recipe, parse_recipe
from kdna_convert.tasks import TASKS, Outputs, Task
from kdna_convert.tasks import run as run_task

RESULTS = Path(__file__).parent / "results" / "task_nets.jsonl"
IMAGES, SIDE = 12, 128
TOLERANCE = 1e-4  # of the largest output
RECIPE = """
scheme: lowrank
budget: {params: 0.95}
repair: [refit]
repair_time: 30s
calibration: {images: 4, heldout: 4, batch: 4, memory: 512MiB}
"""
# Of a ResNet-50, for time: what is converted is the rest of the net. int8 takes no search.
LARGE: dict[str, Any] = {"kept": "['*layer[1-4]*']", "codec": "int8"}
STAGES = ("analyze", "plan", "convert", "load", "folded", "verify", "eval", "finetune", "code", "merged", "onnx")


@dataclass(frozen=True)
class Net:
    """A net.

    Attributes:
        name: Its name in the results.
        model: MODEL.
        options: Those of its task.
        batches: Its images, where they are tensors.
        kept: The layers that the recipe excludes.
        codec: How `code` stores it.
    """

    name: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    batches: Callable[[], Any] | None = None
    kept: str = "[]"
    codec: str = "entropy"


class TwoInputs(nn.Module):
    """A net of a user's own: the mask of what changed between two images."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 64)
        self.trunk = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(own, to, 3, stride=2, padding=1), nn.BatchNorm2d(to), nn.ReLU())
                for own, to in pairwise(widths)
            )
        )
        self.mix = nn.Sequential(nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 1))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        change = self.mix(torch.cat([self.trunk(before), self.trunk(after)], 1))
        return F.interpolate(change, size=before.shape[-2:], mode="bilinear")


def two_inputs() -> nn.Module:
    """The factory of TwoInputs."""
    return TwoInputs()


def pairs() -> list[tuple[tuple[Tensor, Tensor], None]]:
    """Batches of two images, the second one moved."""
    own = torch.stack(list(pictures()))
    return [((part, part.roll(3, -1)), None) for part in own.split(4)]


SMALL = f"min_size={SIDE}, max_size={SIDE + SIDE // 2}"
FEW = f"{SMALL}, box_detections_per_img=8"
NETS = (
    Net("fcn_resnet50", "torchvision:fcn_resnet50(pretrained=False, num_classes=5)", **LARGE),
    Net("deeplabv3", "torchvision:deeplabv3_mobilenet_v3_large(pretrained=False, num_classes=5)", codec="int8"),
    Net("lraspp", "torchvision:lraspp_mobilenet_v3_large(pretrained=False, num_classes=5)"),
    Net("fasterrcnn", f"torchvision:fasterrcnn_mobilenet_v3_large_320_fpn(pretrained=False, {FEW})", codec="int8"),
    Net("retinanet", f"torchvision:retinanet_resnet50_fpn(pretrained=False, {SMALL})", **LARGE),
    Net("ssdlite320", "torchvision:ssdlite320_mobilenet_v3_large(pretrained=False)"),
    Net("maskrcnn", f"torchvision:maskrcnn_resnet50_fpn(pretrained=False, {FEW})", **LARGE),
    Net("fcos", f"torchvision:fcos_resnet50_fpn(pretrained=False, {SMALL})", **LARGE),
    Net("keypointrcnn", f"torchvision:keypointrcnn_resnet50_fpn(pretrained=False, {FEW})", **LARGE),
    Net("raft_small", "torchvision:raft_small(pretrained=False)", batches=pairs),
    Net("two_inputs", f"{__file__}:two_inputs", options={"task": "binary"}, batches=pairs),
)


def pictures() -> Iterator[Tensor]:
    """Smooth colored noise in 0..1."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(IMAGES):
        parts = [
            F.interpolate(torch.randn(1, 3, side, side, generator=generator), size=SIDE, mode="bilinear")
            for side in (4, 16, 64)
        ]
        yield (0.5 + 0.2 * torch.cat(parts).sum(0)).clamp(0, 1)


def painted(folder: Path) -> Path:
    """A folder of these pictures."""
    folder.mkdir()
    for number, picture in enumerate(pictures()):
        pixels = (255 * picture).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def awake(net: nn.Module, *inputs: Tensor) -> nn.Module:
    """The net, in place, with the statistics of these inputs and of noise in its norms, and scores that vary.

    A deep net with random weights and the statistics it begins with gives almost the same for every image. Noise is
    what kdna surveys and exports nets with.
    """
    for name, module in net.eval().named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 1.0
        elif name.rpartition(".")[2] in ("cls_logits", "cls_score"):
            nn.init.normal_(module.weight, std=0.1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        net(*(torch.cat([own, torch.randn(own.shape, generator=generator)]) for own in inputs))
    return net.eval()


# --- one net --------------------------------------------------------------------------------------------------------


def stages(net: Net, scratch: Path, given: argparse.Namespace) -> Iterator[Row]:
    """A row for each stage. One that fails ends those that need its result."""
    chain = Chain(net, parse_recipe(RECIPE, [f"exclude={net.kept}"]), scratch)
    deadline = time.monotonic() + given.seconds
    for stage in given.stages:
        row: Row = {"net": net.name, "stage": stage}
        began = time.process_time()
        if time.monotonic() > deadline:
            yield row | {"outcome": "limit"}
            continue
        try:
            outcome: Row = {"outcome": "ok", "detail": getattr(chain, stage)()}
        except NeedsError as error:
            outcome = {"outcome": "skipped", "detail": str(error)}
        except KdnaError as error:
            outcome = {"outcome": "refused", "code": error.code, "detail": error.message}
        except Exception as error:  # noqa: BLE001 - finding these is what the run is for
            frames = traceback.extract_tb(error.__traceback__)
            own = [f"{Path(each.filename).name}:{each.lineno}" for each in frames if "kdna_convert" in each.filename]
            outcome = {"outcome": "traceback", "detail": f"{type(error).__name__}: {error}"[:300], "at": own[-4:]}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        yield row | outcome | {"cpu_seconds": round(time.process_time() - began, 1), "peak_gb": round(peak, 2)}


class NeedsError(Exception):
    """A stage whose input an earlier stage did not make."""


class Chain:
    """The stages of one net, one method each. Each returns a few words on its result."""

    def __init__(self, net: Net, recipe: Recipe, scratch: Path) -> None:
        self.net, self.scratch = net, scratch
        self.data: Any = painted(scratch / "images") if net.batches is None else net.batches()
        self.original = awake(load_model(net.model).model, *self._first())
        checkpoint = scratch / "weights.safetensors"
        save_file(self.original.state_dict(), checkpoint)
        self.making: dict[str, Any] = {
            "recipe": recipe,
            "data": self.data,
            "checkpoint": str(checkpoint),
            **net.options,
        }
        if net.batches is None:
            self.making["inputs"] = {"input_size": (SIDE, SIDE)}
        self.conversion: kdna.Conversion | None = None
        self.task: Task = TASKS["raw"]

    @property
    def folder(self) -> Path:
        folder = self.scratch / "net"
        if not folder.exists():
            raise NeedsError("no converted net")
        return folder

    @property
    def opening(self) -> dict[str, Any]:
        return {"trust_code": True} if ".py:" in self.net.model else {}

    def analyze(self) -> str:
        analysis = kdna.analyze(self.net.model, **self.making)
        return f"{len(analysis.layers)} layers"

    def plan(self) -> str:
        plan = kdna.plan(self.net.model, **self.making)
        return f"{sum(len(family.members) for family in plan.families)} layers to convert"

    def convert(self) -> str:
        self.conversion = kdna.convert(self.net.model, **self.making)
        kdna.save(self.conversion, self.scratch / "net")
        report = self.conversion.report
        if report.divergence is None:
            raise AssertionError("no divergence was measured")
        self.task = TASKS[report.divergence.task]
        repaired = [f"{step.step} {'kept' if step.kept else 'undone'}" for step in report.repair or ()]
        return f"{report.divergence.task}, error {report.divergence.logit_error:.2g}, {', '.join(repaired)}"

    def load(self) -> str:
        own = self.conversion.model if self.conversion is not None else None
        if own is None:
            raise NeedsError("no converted net")
        return self._same(own, kdna.load(self.folder, **self.opening))

    def folded(self) -> str:
        pair = (kdna.load(self.folder, folded=form, **self.opening) for form in (False, True))
        return self._same(*pair)

    def verify(self) -> str:
        checks = kdna.verify(self.folder, data=self.data, **self.opening, **self.net.options)
        failed = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
        if failed:
            raise AssertionError("; ".join(failed))
        return f"{len(checks)} checks"

    def eval(self) -> str:
        own = kdna.evaluate(self.folder, data=self.data, **self.opening, **self.net.options)
        measures = "".join(f", {name} {value:.3g}" for name, value in (own.from_original or {}).items())
        return f"{own.task}, error {own.logit_error:.2g}{measures}"

    def finetune(self) -> str:
        settings: dict[str, Any] = {"steps": 4, "batch_size": 4, "lr": 1e-4}
        tuned = kdna.finetune(self.folder, data=self.data, **settings, **self.opening, **self.net.options)
        report = tuned.report.finetune
        if report is None or report.before is None or report.after is None:
            raise AssertionError("no divergence was measured")
        return f"error {report.before.distance:.3g} to {report.after.distance:.3g}"

    def code(self) -> str:
        size = {"target_bytes": "1/6"} if self.net.codec == "entropy" else {}
        how: dict[str, Any] = {"codec": self.net.codec, **size, **self.opening, **self.net.options}
        coded = kdna.code(self.folder, data=self.data, **how)
        folder = kdna.save(coded, self.scratch / "coded")
        worst = self._same(coded.model, kdna.load(folder, **self.opening))
        return f"{self.net.codec}, {(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB, {worst}"

    def merged(self) -> str:
        file = self.scratch / "merged.safetensors"
        kdna.export(self.folder, to="merged", output=file, **self.opening)
        merged = fit_weights(copy.deepcopy(self.original), read_state_dict(str(file)), str(file))
        return self._same(kdna.load(self.folder, **self.opening), merged)

    def onnx(self) -> str:
        return kdna.export(self.folder, to="onnx", output=self.scratch / "net.onnx", **self.opening).note

    def _same(self, net: nn.Module, other: nn.Module) -> str:
        """Raise AssertionError if two nets have different outputs, or heads of a detector."""
        worst = max(
            float((a - b).abs().max() / a.abs().max().clamp_min(1e-20))
            for a, b in zip(self._outputs(net), self._outputs(other), strict=True)
        )
        if not worst <= TOLERANCE:
            raise AssertionError(f"outputs differ by {worst:.1e} of the largest")
        return f"equal to {worst:.0e}"

    def _outputs(self, net: nn.Module) -> Outputs:
        inputs = self._first()
        with torch.no_grad():
            return run_task(self.task, net.eval(), inputs[0], lambda _: net(*inputs))

    def _first(self) -> tuple[Tensor, ...]:
        """The first images, as the net takes them."""
        return self.data[0][0] if self.net.batches is not None else (torch.stack(list(pictures())[:4]),)


# --- the run --------------------------------------------------------------------------------------------------------


def child(pipe: Connection, net: Net, given: argparse.Namespace) -> None:
    """Run one net and send its rows."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for row in stages(net, Path(scratch), given):
            pipe.send(row)


def run(net: Net, given: argparse.Namespace) -> None:
    """A net in a process of its own, whose rows are written as they come."""
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs, net, given))
    process.start()
    theirs.close()
    missing = list(given.stages)
    while missing:
        try:
            row = ours.recv()
        except EOFError:
            row = {"net": net.name, "stage": missing[0], "outcome": "killed"}
        missing.remove(row["stage"])
        append(given.results, row)
        print(
            " ".join(
                f"{row.get(key, '')}" for key in ("net", "stage", "outcome", "code", "detail", "at", "cpu_seconds")
            )
        )
        if row["outcome"] == "killed":
            break
    process.join()


def done(net: Net, found: Sequence[Row]) -> bool:
    return {row["stage"] for row in found if row["net"] == net.name} == set(STAGES)


def summary(found: Sequence[Row]) -> str:
    """A line for each net, with the outcome of every stage."""
    last = {(row["net"], row["stage"]): row for row in found}
    lines = []
    for net in NETS:
        own = [last.get((net.name, stage), {}) for stage in STAGES]
        seconds = sum(row.get("cpu_seconds", 0) for row in own)
        peak = max(row.get("peak_gb", 0) for row in own)
        lines.append([net.name, *(cell(row) for row in own), f"{seconds:.0f}", f"{peak:.1f}"])
    return table(("net", *STAGES, "CPU s", "GB"), lines)


def cell(row: Row) -> str:
    return str(row.get("code") or row.get("outcome", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="nets whose names contain this text")
    parser.add_argument("--stages", nargs="*", default=STAGES, help="only these stages; all begin with a conversion")
    parser.add_argument("--again", action="store_true", help="measure nets that the file has; it keeps both")
    parser.add_argument("--seconds", type=float, default=900, help="start no stage of a net after so long")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    _ = kdna.convert  # imports the rest once, before the processes fork
    for net in NETS:
        if given.only in net.name and (given.again or not done(net, rows(given.results))):
            run(net, given)
            sys.stdout.flush()
    print(summary(rows(given.results)))


if __name__ == "__main__":
    main()
