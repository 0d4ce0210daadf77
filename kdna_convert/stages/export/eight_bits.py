"""What the forms with 8-bit arithmetic have in common: images to calibrate on, agreement with torch, and speed-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...core.errors import DataError
from .export import ExportSource
from .graph_outputs import named_tensors, outputs_of

# More images hardly change the ranges of the activations (docs/decisions/0032-eight-bit-exports.md).
CALIBRATION = 64
TOLERANCE = 0.4  # of the largest number of an output: finds a wrong graph; `quality` says how good a right one is
_AT_ONCE = 16
_ROUNDS = 11
_OF_CLASSES = ("classify", "segment")


def calibration_images(source: ExportSource) -> Tensor:
    """The images to calibrate on: half of the user's, at most CALIBRATION. Raises DataError KD405 for less than two."""
    return _parts(source)[0]


def quality(source: ExportSource, run: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, float]:
    """How the outputs of `run` compare with torch's on the images that were not calibrated on.

    Returns:
        `agreement`, the share of images or pixels with the same top class, if the net's first output has classes;
        `relative_error`, |z - z0|^2 / |z0|^2 over all outputs; `held_out`, the number of images.
    """
    images, classes = _parts(source)[1], _has_classes(source)
    same, count, error, norm = 0, 0, 0.0, 0.0
    for batch in images.split(_AT_ONCE if "batch" in source.options.dynamic else 1):
        expected, found = named_tensors(outputs_of(source.net, batch)), run(batch)
        if classes:
            agreed = found[source.outputs[0]].argmax(1) == expected[source.outputs[0]].argmax(1)
            same, count = same + int(agreed.sum()), count + agreed.numel()
        error += sum(float((found[name] - z).double().square().sum()) for name, z in expected.items())
        norm += sum(float(z.double().square().sum()) for z in expected.values())
    agreement = {"agreement": same / count} if classes else {}
    return {**agreement, "relative_error": error / max(norm, 1e-30), "held_out": float(len(images))}


def speed_up(slow: Callable[[Tensor], object], fast: Callable[[Tensor], object], source: ExportSource) -> float:
    """How many times as fast `fast` is on one image: medians of runs that take turns."""
    image = source.example[:1]
    times: dict[Callable[[Tensor], object], list[float]] = {slow: [], fast: []}
    for _ in range(1 + _ROUNDS):
        for run, found in times.items():
            start = time.perf_counter()
            run(image)
            found.append(time.perf_counter() - start)
    return statistics.median(times[slow][1:]) / statistics.median(times[fast][1:])


def _parts(source: ExportSource) -> tuple[Tensor, Tensor]:
    """The images to calibrate on, and the others."""
    if source.images is None or len(source.images) < 2:
        raise DataError("KD405", "8-bit ranges are calibrated and measured on images: pass --data DATA, two or more")
    count = min(CALIBRATION, len(source.images) // 2)
    return source.images[:count], source.images[count:]


def _has_classes(source: ExportSource) -> bool:
    """Whether the largest number of the first output is an answer: by the measured task, else by a vector per image."""
    measured = source.conversion.report.divergence
    if measured is not None:
        return measured.task in _OF_CLASSES
    with torch.no_grad():
        first = next(iter(named_tensors(source.net(source.example)).values()))
    return first.ndim == 2 and first.shape[1] > 1
