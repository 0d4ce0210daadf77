"""The verb `code`: store the tensors of a converted net with a codec, in a file of a given size."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..codecs import CODECS
from ..codecs.quantization_steps import step_of
from ..core.errors import FolderError, PlanError, RecipeError
from ..core.filesize import file_size, metadata
from ..core.progress import as_progress
from ..core.specs import Layer, Progress
from ..inputs.data import Data, Mixed
from ..inputs.models import example_input, state_digest
from ..inputs.recipe import parse_recipe, parse_target
from ..inputs.recipe.schema import Calibration
from ..network.batch_norm import foldable_norms
from ..network.derive import fold
from ..network.folder import Conversion, uncoded
from ..network.folder.report import CodeReport
from ..network.packed import coded_specs, pack, steps_of, unpack
from ..network.stored import load_stored, stored_parameters
from ..stages.analyze.collect import Sampling, collect
from ..stages.analyze.data_free import data_free
from ..stages.analyze.moments import Moments
from ..stages.analyze.survey import survey
from ..stages.code import CodedNet, code_to_size, sensitivity_of
from ..stages.convert.fit import Measure
from ..stages.finetune import Codes
from ..stages.repair.net_pair import BlockProgress, NetPair, walk_memory
from ..tasks import Task
from .keywords import StageOptions, check_keywords
from .net_task import conversion_task
from .nets import device_of_name, known_original, opened, require_inputs
from .splits import split_images

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Alpha of the image mixtures on which the sensitivity of the loss is measured. A net is so certain of its training
# images that its gradients on them are almost zero.
MIXED = 1.0
# Values of `kdna finetune --train` that train a net in its coded form. All others train the decoded net.
CODED = ("norms", "codes")
# Reasons of layers that are rounded with error feedback: no reason, and depthwise. Others are rounded more finely.
_ROUNDED = (None, "KD103")


def code(
    folder: str | Path | Conversion,
    *,
    codec: str = "entropy",
    target_bytes: float | str | None = None,
    data: Data | str | Path | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
    **options: Unpack[StageOptions],
) -> Conversion:
    """Store the tensors of a conversion with a codec; `save` writes the coded file.

    Args:
        folder: a converted folder, or a conversion, which is not changed.
        codec: entropy, which meets `target_bytes`, or fp16, bf16, int8 or int4, which have one size.
        target_bytes: size of the whole file ("86kB"), or a share of the original's ("1/20", "5%"). The entropy coder
            uses at least 99 % of it and never more.
        data: unlabeled images for the entropy coder: a path, a tensor of inputs, or batches. Without images it rounds
            on synthetic noise, which costs accuracy.
        seed: seed of the order of the images.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: class_map, a file of class names, one per line, in the order of the net's outputs; device: auto, cpu,
            cuda, cuda:1 or mps; model and trust_code, as for `finetune`; task and outputs, as for `convert`.

    Raises:
        PlanError: KD501 for a size that cannot be met, KD504 for `entropy` without a size, KD506 for an unknown codec
            or an invalid size.
        NumericsError: KD701, KD704.
        DataError: KD401 without images.
    """
    check_keywords("code", options, StageOptions)
    progress = as_progress(progress)
    began = time.perf_counter()
    before = uncoded(opened(folder, options))
    room = require_size(codec, target_bytes, before.plan.original.bytes)
    coding = _coding_of(before, data, options, seed, progress)
    towards, step = None, None
    if codec == "entropy" and room is not None:
        blob, model, towards, step = _by_entropy(coding, room)
    else:
        blob = pack(before.model, codec, {})
        model = load_stored(copy.deepcopy(before.model), unpack(blob))
    size = _file_size(before, blob)
    if room is not None and size > room:
        raise PlanError("KD501", f"{codec} takes {size:,} bytes, and {room:,} are allowed; use --codec entropy")
    report = before.report.with_stage("code", None if coding.measure is None else coding.measure(model))
    done = CodeReport(codec, size, room, towards, step, round(time.perf_counter() - began, 2))
    report = replace(report, code=done)
    plan = replace(before.plan, planned=replace(before.plan.planned, bytes=size))
    return replace(before, model=model.eval(), plan=plan, report=report, coded=blob)


def recoded(conversion: Conversion) -> Conversion:
    """Code a conversion again that was trained in its coded form (CODED), within the bytes that it had.

    Every tensor keeps its quantization step, so tensors that were not trained do not change. The shifts of
    normalizations are rounded more coarsely if they do not fit. The divergence of the result is not known.
    """
    blob, done = conversion.coded, conversion.report.code
    if blob is None or done is None:
        return conversion
    steps, norms = steps_of(blob), foldable_norms(conversion.model)
    room = done.target or _file_size(conversion, blob)
    for coarser in range(0, 64 * 8, 8):  # an eighth of an octave at a time
        finer = {name: step + coarser if name in norms else step for name, step in steps.items()}
        blob = pack(conversion.model, done.codec, finer)
        size = _file_size(conversion, blob)
        if size <= room:
            break
    else:
        raise PlanError("KD501", f"the trained normalizations take {size:,} bytes, and {room:,} are allowed")
    model = load_stored(copy.deepcopy(conversion.model), unpack(blob)).eval()
    plan = replace(conversion.plan, planned=replace(conversion.plan.planned, bytes=size))
    report = replace(conversion.report, code=replace(done, bytes=size))
    return replace(conversion, model=model, plan=plan, report=report, coded=blob)


def codes_of(conversion: Conversion, model: nn.Module) -> Codes:
    """The integers of `model`, a copy of the net of a coded conversion, for training within their bytes.

    Raises:
        RecipeError: KD208 if the conversion is not coded by `entropy`, or has no quantization steps.
    """
    blob, coding = conversion.coded, conversion.report.code
    if blob is None or coding is None or coding.codec != "entropy":
        raise RecipeError("KD208", "train: codes are those of a folder that `kdna code --codec entropy` wrote")
    steps, parameters = steps_of(blob), stored_parameters(model)
    coded = {name: parameters[name] for name in steps if name in parameters and parameters[name].ndim > 1}
    room = coding.target or _file_size(conversion, blob)

    def fits() -> bool:
        return _file_size(conversion, pack(model, "entropy", steps)) <= room

    return Codes(coded, {name: step_of(steps[name]) for name in coded}, fits)


def require_size(codec: str, target: float | str | None, whole: int) -> int | None:
    """The most bytes of the file, for an original of `whole` bytes; None: no limit. Raises PlanError KD504, KD506."""
    if codec not in CODECS:
        raise PlanError("KD506", f"there is no codec {codec!r}; it is one of {', '.join(CODECS)}")
    if codec == "entropy" and target is None:
        raise PlanError("KD504", "entropy coding meets a size, and none was given; pass --target-bytes 1/20, say")
    return None if target is None else parse_target(target, whole)


@dataclass(frozen=True)
class _Coding:
    """What is coded: the conversion, its original if it is available, and inputs to calibrate on."""

    before: Conversion
    original: nn.Module | None
    inputs: list[Tensor]
    settings: Calibration
    measure: Measure | None  # the divergence from the original on held-out images
    device: torch.device
    seed: int
    progress: Progress | None
    task: Task


def _coding_of(before: Conversion, data: Any, options: StageOptions, seed: int, progress: Progress | None) -> _Coding:
    place = device_of_name(options.get("device", "auto"))
    original, settings = known_original(before), parse_recipe(before.recipe).calibration
    if data is None:
        task = conversion_task(before, options, measured=False)
        return _Coding(before, original, [], settings, None, place, seed, progress, task)
    images = split_images(data, before.data, options.get("class_map"), settings, seed)
    require_inputs(before.model, images.whole, original)
    task = conversion_task(before, options)
    inputs, measure = images.calibration_inputs(), images.divergence_from(original or before.model, task)
    return _Coding(before, original, inputs, settings, measure, place, seed, progress, task)


def _by_entropy(coding: _Coding, room: int) -> tuple[bytes, nn.Module, str, float]:
    """The bytes, the net that they decode to, the net that they approximate, and the step."""
    itself = copy.deepcopy(coding.before.model).to(coding.device).eval()
    plain = fold(copy.deepcopy(itself)) if coding.original is None else coding.original.to(coding.device)
    layers = [
        layer
        for layer in survey(plain, example_input(coding.before.data).to(coding.device))
        if layer.reason in _ROUNDED
    ]
    moments = _moments(coding, plain, layers)
    sensitivity = sensitivity_of(moments)
    room -= _file_size(coding.before, bytes(room)) - room
    coded: dict[str, CodedNet] = {}
    for name, goal in _goals(coding, itself).items():
        images = coding.inputs or [example_input(coding.before.data)]
        nets = NetPair(goal, itself, layers, images, memory=walk_memory(coding.settings.memory))
        nets.apart = coding.task.apart(goal)
        coded[name] = code_to_size(
            nets,
            sensitivity,
            room,
            rounding="sequential" if coding.inputs else "separate",
            start=next((found.delta for found in coded.values()), None),
            progress=_block_progress(f"code: towards {name}", coding.progress),
        )
    best = next(iter(coded))
    if coding.measure is not None and len(coded) > 1:
        far = {name: coding.measure(found.model).distance for name, found in coded.items()}
        best = min(far, key=lambda name: far[name])
    return coded[best].blob, coded[best].model.cpu(), best, coded[best].delta


def _goals(coding: _Coding, itself: nn.Module) -> dict[str, nn.Module]:
    """The nets that the coded net can approximate: the original, and the net before coding if it is another.

    Each is tried as the target that layers compensate errors for. The result closer to the original is used.
    """
    if coding.original is None:
        return {"itself": itself}
    goals = {"the original": coding.original}
    try:
        changed = state_digest(fold(copy.deepcopy(itself))) != coding.before.plan.model.sha256
    except FolderError:  # a gate was trained
        changed = True
    return {**goals, "itself": itself} if changed and coding.measure is not None else goals


def _moments(coding: _Coding, plain: nn.Module, layers: Sequence[Layer]) -> Moments:
    if coding.inputs:
        mixed = Mixed(coding.inputs, MIXED, coding.seed, each=False)  # as all of explanation/results.md was measured
        sampling = Sampling(seed=coding.seed)
        return collect(
            plain,
            layers,
            mixed,
            memory=coding.settings.memory,
            gradients="pairs",
            sampling=sampling,
            task=coding.task,
            device=coding.device,
            progress=coding.progress,
        )
    size = coding.before.data.input_size
    how: dict[str, Any] = {
        "seed": coding.seed,
        "device": coding.device,
        "progress": coding.progress,
        "task": coding.task,
    }
    return data_free(plain, layers, size, images=coding.settings.images, memory=coding.settings.memory, **how)


def _file_size(conversion: Conversion, blob: bytes) -> int:
    return file_size(coded_specs(blob), metadata(conversion.plan.model, conversion.recipe))


def _block_progress(what: str, progress: Progress | None) -> BlockProgress:
    def tick(done: int, of: int) -> None:
        if progress is not None:
            progress(what, done, of)

    return tick
