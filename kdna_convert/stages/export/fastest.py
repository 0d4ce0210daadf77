"""The form that runs fastest on this machine: each is written, timed in turns with the others, and compared with torch.

Of those that answer as torch does on enough of the user's images, the fastest is kept.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from ...core.atomic import new_folder
from ...core.errors import DataError, ModelError
from ...core.machine import cpu_name
from ...core.specs import Progress
from ...network.folder import Conversion
from .eight_bits import quality
from .export import Export, Exported, ExportOptions, ExportSource
from .onnx import Onnx, Session
from .onnx_int8 import OnnxInt8
from .openvino import MODEL, OpenVino, compiled
from .openvino_int8 import OpenVinoInt8
from .source import source_of
from .write import RECORD, check_form, free_place, write_export

ROUNDS = 15
# The least agreement with torch of the form that is kept, unless the caller says otherwise.
LEAST = 0.95
GRAPH = "net.onnx"
Net = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class FormTimes:
    """What was found of one form.

    Attributes:
        name: The form, and the arithmetic if it is not the form's own.
        ms: Milliseconds of one image, the median.
        ratio: How many times as fast as the first form.
        agreement: The share, 0..1, of images with torch's answer; of nets without classes, 1 less the relative distance
            |z - z0| / |z0|.
        bytes: Of the files.
        why: Why it was not tried, or is not kept.
    """

    name: str
    ms: float | None = None
    ratio: float | None = None
    agreement: float | None = None
    bytes: int | None = None
    why: str | None = None


@dataclass(frozen=True)
class Fastest:
    """The form that was kept, in a folder of its name inside of `file`, and what was found of each."""

    file: str
    form: str
    usage: str
    machine: str
    images: int
    rows: tuple[FormTimes, ...]


@dataclass(frozen=True)
class FormToTry:
    """A form that is tried: how its file is loaded, and the line of Python that does so for a FILE."""

    name: str
    form: Export
    load: Callable[[ExportSource, Path], Net]
    usage: str

    def folder(self, parent: Path) -> Path:
        """Where its files are; one for each arithmetic of a form, so that the best can be kept alone."""
        return parent / self.name.replace(", ", "-")

    def file(self, parent: Path) -> Path:
        """What the runtime is given."""
        return self.folder(parent) / (MODEL if self.form.folder else GRAPH)


def _session(source: ExportSource, file: Path) -> Net:
    return Session(file, source.options.input_names[0])


def _openvino(name: str, form: OpenVino, precision: str) -> FormToTry:
    usage = f'openvino.compile_model("FILE", "CPU", {{"INFERENCE_PRECISION_HINT": "{precision}"}})'
    return FormToTry(name, form, lambda source, file: compiled(file, precision), usage)


ONNXRUNTIME = 'onnxruntime.InferenceSession("FILE")'
# The first is what the others are compared with.
CANDIDATES = (
    FormToTry("onnx", Onnx(), _session, ONNXRUNTIME),
    FormToTry("onnx-int8", OnnxInt8(), _session, ONNXRUNTIME),
    _openvino("openvino", OpenVino(), "f32"),
    _openvino("openvino, bf16", OpenVino(), "bf16"),
    _openvino("openvino-int8", OpenVinoInt8(), "f32"),
)


def write_fastest(
    conversion: Conversion,
    path: str | Path,
    images: Tensor,
    options: ExportOptions | None = None,
    *,
    least: float = LEAST,
    force: bool = False,
    progress: Progress | None = None,
) -> Fastest:
    """Write the form that runs fastest on this machine, in a folder with a record of all that were tried.

    Args:
        conversion: The converted net.
        path: The folder.
        images: Normalized images (N, *input_size). Half of them, at most 64, calibrate; the others are compared.
        options: Of dynamic, normalize, input_names and factored.
        least: The least agreement with torch of the form that is kept.
        force: Replace a folder that an export wrote.
        progress: Called before each form.

    Raises:
        DataError: KD405 for less than two images.
        FolderError: KD601 if the folder exists and `force` is not given.
        ModelError: KD312 if onnxruntime is not installed, or the net has no graph for other images; KD315 for opset or
            fp16.
    """
    if len(images) < 2:
        raise DataError("KD405", "what is fastest is measured on images: pass --data DATA with two images or more")
    options = options or ExportOptions()
    if options.opset is not None or options.fp16:
        raise ModelError("KD315", "fastest does not take --opset or --fp16: it chooses the arithmetic itself")
    if options.factored is None:
        options = replace(options, factored=conversion.plan.planned.latency is not None)
    target = free_place(OpenVino(), path, force)  # which writes a folder, too
    check_form(CANDIDATES[0].form, options)
    source = source_of(conversion, options, images, graph=True)
    with new_folder(target) as folder:
        found, refused = _all_written(source, images, folder, progress)
        nets = {name: net for name, (_, net) in found.items()}
        times, agreements = _times(nets, source), {name: _agreement(source, net) for name, net in nets.items()}
        rows = tuple(_row(each.name, found, refused, times, agreements, least) for each in CANDIDATES)
        best = min((row for row in rows if row.why is None and row.ms is not None), key=lambda row: row.ms or 0.0)
        kept = next(candidate for candidate in CANDIDATES if candidate.name == best.name)
        for candidate in CANDIDATES:
            if candidate is not kept:
                shutil.rmtree(candidate.folder(folder), ignore_errors=True)
        usage = kept.usage.replace("FILE", str(kept.file(target)))
        made = Fastest(str(target), best.name, usage, cpu_name(), len(images), rows)
        (folder / RECORD).write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    return made


_Found = dict[str, tuple[Exported, Net]]


def _all_written(
    source: ExportSource, images: Tensor, folder: Path, progress: Progress | None
) -> tuple[_Found, dict[str, str]]:
    """Each form's record and net by its name, and why the others have none. The first must have one."""
    found: _Found = {}
    refused: dict[str, str] = {}
    for done, candidate in enumerate(CANDIDATES):
        if progress is not None:
            progress(f"write: {candidate.name}", done, len(CANDIDATES))
        try:
            found[candidate.name] = _written(candidate, source, images, folder)
        except ModelError as error:
            if candidate is CANDIDATES[0]:
                raise
            refused[candidate.name] = error.message.removesuffix("; nothing was written")
    if progress is not None:
        progress("write", len(CANDIDATES), len(CANDIDATES))
    return found, refused


def _written(candidate: FormToTry, source: ExportSource, images: Tensor, folder: Path) -> tuple[Exported, Net]:
    """The form's files and record in a folder of its own, and the net loaded from them."""
    form = candidate.form
    missing = [name for name in form.needs if find_spec(name) is None]
    if missing:
        raise ModelError("KD312", f"{', '.join(missing)} not installed: pip install 'kdna-convert[{form.extra}]'")
    file = candidate.file(folder)
    made = write_export(form, source.conversion, file.parent if form.folder else file, source.options, images)
    return made, candidate.load(source, file)


def _times(nets: dict[str, Net], source: ExportSource) -> dict[str, float]:
    """Milliseconds of one image, the median of runs that take turns."""
    image = source.example[:1]
    found: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(2 + ROUNDS):
        for name, run in nets.items():
            start = time.perf_counter()
            run(image)
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times[2:]) for name, times in found.items()}


def _agreement(source: ExportSource, run: Net) -> float:
    found = quality(source, run)
    return found["agreement"] if "agreement" in found else 1 - found["relative_error"] ** 0.5


def _row(
    name: str,
    found: _Found,
    refused: dict[str, str],
    times: dict[str, float],
    agreements: dict[str, float],
    least: float,
) -> FormTimes:
    if name in refused:
        return FormTimes(name, why=refused[name])
    low = f"agrees on less than {least:.0%}" if agreements[name] < least else None
    first = times[CANDIDATES[0].name]
    return FormTimes(name, times[name], first / times[name], agreements[name], found[name][0].bytes, low)
