"""The outputs of nets over batches of images, and what is computed from them batch by batch.

rows = statistics([model, original], batches, lambda batch: task.compare(*batch.outputs), task=task)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from operator import length_hint

import torch
from torch import Tensor, nn

from ...core.errors import DataError, KdnaError, ModelError, NumericsError, cause
from ...core.processes import gather, raise_together, share
from ...core.specs import Progress
from ...network.inference import device_of, evaluating
from ...network.trace import peak_bytes
from ...tasks import CLASSIFY, Outputs, Statistics, Task, run

# Inputs (images, ...), with or without labels (images, ...).
Batch = Tensor | tuple[Tensor, Tensor | None]

# Bytes that a forward pass may hold, about: larger batches go through the nets in parts.
LIVE = 2**30
# Inputs of so many bytes fit: no net holds a thousand times its inputs.
_SMALL = 2**20
# Numbers of an output that are compared at once, in float64.
_AT_ONCE = 2**24


@dataclass(frozen=True)
class PassedBatch:
    """A part of a batch that went through the nets.

    Attributes:
        number: The number of the batch.
        inputs: The inputs.
        labels: The labels.
        outputs: The outputs of each net, on the CPU.
        at_once: The most images that went through the nets together.
    """

    number: int
    inputs: Tensor
    labels: Tensor | None
    outputs: tuple[Outputs, ...]
    at_once: int

    def parts(self) -> Iterator[PassedBatch]:
        """The batch in parts of at most _AT_ONCE numbers of an output, at least one image each."""
        largest = max((each[0].numel() for own in self.outputs for each in own), default=1)
        size = max(1, _AT_ONCE // max(1, largest))
        for begin in range(0, len(self.inputs), size):
            rows = slice(begin, begin + size)
            labels = None if self.labels is None else self.labels[rows]
            outputs = tuple(tuple(each[rows] for each in own) for own in self.outputs)
            yield PassedBatch(self.number, self.inputs[rows], labels, outputs, self.at_once)


def statistics(
    nets: Sequence[nn.Module],
    batches: Iterable[Batch],
    of: Callable[[PassedBatch], Statistics],
    *,
    task: Task = CLASSIFY,
    doing: str = "measure",
    progress: Progress | None = None,
    at_once: int | None = None,
) -> Statistics:
    """What `of` computes from every batch, concatenated. In processes.sharing each process runs its share.

    The nets run in eval mode without gradients, and keep their modes. A batch runs in parts of `at_once` images; by
    default, as many as the last net holds in LIVE bytes.

    Raises:
        DataError: KD401 without images.
        ModelError: KD307 if a net fails, KD308 if its outputs are of another task or change between batches.
        NumericsError: KD702 for outputs that are not finite.
    """
    rows: dict[int, list[Statistics]] = {}
    forms: dict[int, list[tuple[int, ...]]] = {}
    with raise_together(), ExitStack() as stack:
        for net in nets:
            stack.enter_context(evaluating(net))
        for number, inputs, labels in _counted(batches, doing, progress):
            if not len(inputs):
                continue
            at_once = at_once or images_at_once(nets[-1], inputs)
            for part, own_labels in split(inputs, labels, at_once):
                outputs = tuple(_outputs(task, net, part.to(device_of(net))) for net in nets)
                for place, own in enumerate(outputs):
                    _require_form(own, forms.setdefault(place, [tuple(each.shape[1:]) for each in own]))
                batch = PassedBatch(number, part, own_labels, outputs, at_once)
                rows.setdefault(number, []).extend(of(each) for each in batch.parts())
    rows = {number: own for part in gather(rows) for number, own in part.items()}
    if not rows:
        raise DataError("KD401", "there is no image to evaluate on")
    return concatenated([own for number in sorted(rows) for own in rows[number]])


def images_at_once(net: nn.Module, inputs: Tensor) -> int:
    """How many of these inputs a net in eval mode takes in LIVE bytes, at least one. The first runs, unless all fit."""
    if inputs.nbytes <= _SMALL or len(inputs) == 1:
        return max(1, _SMALL // inputs[:1].nbytes)
    try:
        held = peak_bytes(net, inputs[:1])
    except Exception:  # noqa: BLE001 - the error comes again, with a message, where the outputs are computed
        return len(inputs)
    return max(1, LIVE // max(1, held))


def split(inputs: Tensor, labels: Tensor | None, at_once: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """A batch in parts of so many images."""
    own_labels = repeat(None) if labels is None else labels.split(at_once)
    return zip(inputs.split(at_once), own_labels, strict=False)


def concatenated(rows: Sequence[Statistics]) -> Statistics:
    """The statistics of several batches; only those that all batches have."""
    names = [name for name in rows[0] if all(name in own for own in rows)]
    return {name: torch.cat([own[name] for own in rows]) for name in names}


def outputs_of(
    net: nn.Module, batches: Iterable[Batch], task: Task = CLASSIFY, progress: Progress | None = None
) -> Outputs:
    """The outputs of a net on all batches, on the CPU, float32. Raises as `statistics` does."""

    def numbered(batch: PassedBatch) -> Statistics:
        return {str(place): each for place, each in enumerate(batch.outputs[0])}

    return tuple(statistics([net], batches, numbered, task=task, doing="outputs", progress=progress).values())


def _outputs(task: Task, net: nn.Module, inputs: Tensor) -> Outputs:
    """A net's outputs, of one image at a time if it takes no batch. Raises ModelError KD307."""
    try:
        outputs = tuple(each.float().cpu() for each in run(task, net, inputs))
    except (KdnaError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the net is user code and may raise anything
        if len(inputs) == 1:
            shape, why = tuple(inputs.shape), cause(error)
            raise ModelError("KD307", f"the forward pass failed on an image of shape {shape}: {why}") from error
        rows = [_outputs(task, net, image) for image in inputs.split(1)]
        for own in rows:
            _require_form(own, [tuple(each.shape[1:]) for each in rows[0]])
        return tuple(torch.cat(own) for own in zip(*rows, strict=True))
    if not all(each.isfinite().all() for each in outputs):
        raise NumericsError("KD702", "the net's outputs are not finite")
    return outputs


def _require_form(outputs: Outputs, form: Sequence[tuple[int, ...]]) -> None:
    """Raise ModelError KD308 for outputs of another structure than the first batch's. Sides of maps may change."""
    own = [tuple(each.shape[1:]) for each in outputs]
    if [len(shape) for shape in own] != [len(shape) for shape in form]:
        raise ModelError(
            "KD308", f"the net returns outputs of shapes {list(form)} on one batch and {own} on another; pass --outputs"
        )


def _counted(
    batches: Iterable[Batch], doing: str, progress: Progress | None
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """The batches of this process, with their numbers."""
    total = length_hint(batches, 0)
    for number, batch in share(batches):
        if progress:
            progress(doing, number, total)
        yield number, *((batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1]))
    if progress:
        progress(doing, total, total)
