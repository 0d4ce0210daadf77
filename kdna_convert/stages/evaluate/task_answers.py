"""What two nets answer on one input, by their task: how far apart they are, the answers as plain values, pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.disagreement import Answer, FoundBox, Pixels
from ...tasks import Outputs, Statistics
from ...tasks.binary import bernoulli_kl
from ...tasks.sequence import PADDING, decoded
from .box_matching import boxes_apart, certain_boxes
from .input_pictures import amplified, largest_part, marked, pixels

Shown = tuple[tuple[str, Pixels], ...]
# Sides of pictures, in pixels: of an input, of one with boxes, and of a part of an output image.
SIDE, BOXED, PART = 160, 320, 256
# The most numbers of an output that are shown, and the most boxes of an image.
NUMBERS, BOXES = 8, 20


@dataclass(frozen=True)
class AnswerKind:
    """The answers of a task. Functions take the outputs of the converted net and of the original, of one input.

    Attributes:
        shown: How many inputs are shown.
        values: How far apart the nets are on each input of a batch, from the statistics of `compare` and the outputs.
        answers: The answers of the converted net and of the original.
        decisions: The numbers of the classes that a net chooses in a batch; None where there are no classes.
        truth: The label of an input as an answer, next to the original's; None where it is not shown.
        pictures: Pictures of an input, which is given as one (channels, height, width), and of the outputs.
        lowest: Whether low values are the ones far apart.
        nothing: A value that no difference has; values beyond it are not shown.
    """

    shown: int
    values: Callable[[Statistics, Outputs, Outputs], Tensor]
    answers: Callable[[Outputs, Outputs], tuple[Answer, Answer]]
    decisions: Callable[[Outputs], Tensor] | None = None
    truth: Callable[[Tensor, Answer], Answer] | None = None
    pictures: Callable[[Tensor, Outputs, Outputs], Shown] = lambda shown, own, other: (("", pixels(shown, SIDE)),)
    lowest: bool = False
    nothing: float = 1e-9


def _kl(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    return rows["kl"].clamp(min=0)


def _changed_share(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    return 1 - rows["same"]


def _angle(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    return (1 - rows["cosine"]).clamp(min=0)


def _psnr(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    return rows["psnr"]


def _root_mean_square(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    return (rows["error"][:, 0] / own[0][0].numel()).sqrt()


def _relative(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    """The error of all tensors over their energy; the error itself where the original's are 0."""
    error, energy = rows["error"].sum(1), rows["energy"].sum(1)
    return torch.where(energy > 0, error / energy.clamp(min=torch.finfo(torch.float64).tiny), error)


def _boxes_apart(rows: Statistics, own: Outputs, other: Outputs) -> Tensor:
    return torch.tensor([boxes_apart(*pair) for pair in zip(own[0], other[0], strict=True)], dtype=torch.float64)


def _one_class(own: Outputs, other: Outputs) -> tuple[Answer, Answer]:
    return _likeliest(own[0][0]), _likeliest(other[0][0])


def _likeliest(z_c: Tensor) -> Answer:
    p = z_c.double().softmax(0)
    return Answer((int(z_c.argmax()),), float(p.max()))


def _yes_or_no(own: Outputs, other: Outputs) -> tuple[Answer, Answer]:
    """Of the output on which the nets are furthest apart. Output k is the classes 2 k (no) and 2 k + 1 (yes)."""
    z, z0 = own[0][0].double().flatten(), other[0][0].double().flatten()
    place = int(bernoulli_kl(z, z0).argmax())
    converted, original = (
        Answer((2 * place + int(each[place] > 0),), float(torch.sigmoid(each[place].abs()))) for each in (z, z0)
    )
    return converted, original


def _yes_decisions(outputs: Outputs) -> Tensor:
    return numbered_yes(outputs[0] > 0)


def numbered_yes(yes: Tensor) -> Tensor:
    """Answers yes or no (images, ...) as numbers of classes: 2 k for no, 2 k + 1 for yes, of output k."""
    flat = yes.flatten(1).long()
    return 2 * torch.arange(flat.shape[1], device=flat.device) + flat


def _rows_of_classes(own: Outputs, other: Outputs) -> tuple[Answer, Answer]:
    converted, original = (Answer(tuple(decoded(side[0][0].argmax(0)))) for side in (own, other))
    return converted, original


def _few_numbers(own: Outputs, other: Outputs) -> tuple[Answer, Answer]:
    return _numbers(own[0][0]), _numbers(other[0][0])


def _numbers(z: Tensor) -> Answer:
    return Answer(numbers=tuple(z.double().flatten().tolist())) if z.numel() <= NUMBERS else Answer()


def _nothing(own: Outputs, other: Outputs) -> tuple[Answer, Answer]:
    return Answer(), Answer()


def _found(own: Outputs, other: Outputs) -> tuple[Answer, Answer]:
    converted, original = (
        Answer(boxes=tuple(_box(row.tolist()) for row in certain_boxes(side[0][0])[:BOXES])) for side in (own, other)
    )
    return converted, original


def _box(row: list[float]) -> FoundBox:
    x1, y1, x2, y2, score, number = row
    return FoundBox((x1, y1, x2, y2), int(number), score)


def _where_changed(shown: Tensor, own: Outputs, other: Outputs) -> Shown:
    changed = (own[0][0].argmax(0) != other[0][0].argmax(0)).cpu()
    marks = (("pixels with another answer", pixels(marked(shown, changed), SIDE)),) if changed.ndim == 2 else ()
    return ("input", pixels(shown, SIDE)), *marks


def _restored(shown: Tensor, own: Outputs, other: Outputs) -> Shown:
    """The part of the images that differs most, at full size."""
    after, before = (side[0][0].float().cpu().clamp(0, 1) for side in (own, other))
    if len(after) not in (1, 3):
        return (("input", pixels(shown, PART)),)
    rows, columns = largest_part(after - before, PART)
    factor = after.shape[1] // shown.shape[1]
    if factor and (shown.shape[1] * factor, shown.shape[2] * factor) == tuple(after.shape[1:]):
        high, wide = (slice(side.start // factor, -(-side.stop // factor)) for side in (rows, columns))
        shown = shown[:, high, wide]
    gain, difference = amplified((after - before)[:, rows, columns])
    return (
        ("input", pixels(shown, PART)),
        ("original", pixels(before[:, rows, columns])),
        ("converted", pixels(after[:, rows, columns])),
        (f"difference × {gain}, around gray", pixels(difference)),
    )


def _boxed(shown: Tensor, own: Outputs, other: Outputs) -> Shown:
    return (("input", pixels(shown, BOXED)),)


KINDS = {
    "classify": AnswerKind(
        24, _kl, _one_class, lambda outputs: outputs[0].argmax(1), lambda label, _: Answer((int(label),))
    ),
    "binary": AnswerKind(
        24,
        _kl,
        _yes_or_no,
        _yes_decisions,
        lambda label, original: Answer((int(numbered_yes(label.reshape(1, -1))[0, original.classes[0] // 2]),)),
    ),
    "segment": AnswerKind(8, _changed_share, _nothing, lambda outputs: outputs[0].argmax(1), pictures=_where_changed),
    "sequence": AnswerKind(
        12,
        _kl,
        _rows_of_classes,
        truth=lambda label, _: Answer(tuple(each for each in label.tolist() if each != PADDING)),
    ),
    "regress": AnswerKind(12, _root_mean_square, _few_numbers, truth=lambda label, _: _numbers(label)),
    "embed": AnswerKind(12, _angle, _nothing),
    "raw": AnswerKind(12, _relative, _few_numbers),
    "image": AnswerKind(3, _psnr, _nothing, pictures=_restored, lowest=True, nothing=99.9),
    "detect": AnswerKind(6, _boxes_apart, _found, pictures=_boxed),
}
