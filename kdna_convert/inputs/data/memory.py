"""DATA in memory: a tensor, a torch Dataset, or an iterable of batches such as a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import DataError
from .boxes import packed_target
from .images import Batch, concat_labels, same_shape
from .packing import Packing, packing_of
from .sources import Classes, Label, Sample

# Inputs of one batch: a tensor, or several in a tuple, or by name.
GivenInputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
Batches = Iterable[GivenInputs | tuple[GivenInputs, Tensor | None]]


class TensorSource:
    """Inputs (N, ...) in memory, with labels (N,), with rows of labels (N, length), or without."""

    mapped = False

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor | None,
        classes: Classes | None = None,
        packing: Packing | None = None,
    ) -> None:
        self.classes: Classes = classes or {}
        self.packing = packing
        self.inputs, self.labels = _as_input(inputs), labels
        if self.inputs.ndim == 0:
            raise DataError("KD406", "DATA is a single number; pass a batch of inputs (N, channels, height, width)")
        self.labeled = labels is not None

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        return f"input {index}"

    def sample(self, index: int) -> Sample:
        return self.inputs[index], None if self.labels is None else _label(self.labels[index])

    def finish(self, inputs: Tensor) -> Tensor:
        return inputs


class DatasetSource:
    """A torch Dataset of inputs (C, H, W), or of pairs of an input and its label, as the net takes them."""

    mapped = False

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.classes: Classes = {}
        self.dataset: Any = dataset
        self.packing = packing_of(_single(_pair(dataset[0])[0])) if len(self) else None
        self.labeled = len(self) > 0 and self.sample(0)[1] is not None

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"input {index}"

    def sample(self, index: int) -> Sample:
        inputs, label = _pair(self.dataset[index])
        tensor = _as_input(inputs) if self.packing is None else self.packing.pack(_single(inputs))[0]
        return tensor, None if label is None else _label(label)

    def finish(self, inputs: Tensor) -> Tensor:
        return inputs


def iterate(data: Batches) -> Iterator[Batch]:
    """Each batch, float32, with its labels or None. Several inputs are packed.

    Raises DataError KD401 without batches, KD406 for what is no tensor.
    """
    return ((inputs, labels) for inputs, labels, _ in _packed(data))


def _packed(data: Batches) -> Iterator[tuple[Tensor, Tensor | None, Packing | None]]:
    """Each batch with its packing, which is that of the first."""
    count, packing = 0, None
    for batch in data:
        given, labels = _pair(batch)
        labels = _of_batch(labels)
        packing = packing or packing_of(given)
        inputs = _as_input(given) if packing is None else packing.pack(given)
        count += len(inputs)
        yield inputs, labels, packing
    if not count:
        raise DataError("KD401", "the iterable gave no batch; an iterator can be read only once: pass a list")


def hold(data: Batches, limit: int | None) -> TensorSource:
    """The first `limit` inputs of an iterable of batches, kept in memory."""
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    count, packing = 0, None
    for batch, batch_labels, packing in _packed(data):  # noqa: B007 - used after the loop
        inputs.append(batch)
        count += len(batch)
        if batch_labels is not None:
            labels.append(batch_labels)
        if limit is not None and count >= limit:
            break
    given = concat_labels(labels)[:limit] if len(labels) == len(inputs) else None
    return TensorSource(torch.cat([*same_shape(inputs)])[:limit], given, packing=packing)


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and 1 <= len(item) <= 2:
        return item[0], item[1] if len(item) == 2 else None
    return item, None


def _single(inputs: Any) -> Any:
    """Several inputs of one sample as a batch of one."""
    if isinstance(inputs, Mapping):
        return {key: torch.as_tensor(value)[None] for key, value in inputs.items()}
    return [torch.as_tensor(each)[None] for each in inputs] if isinstance(inputs, tuple | list) else inputs


def _of_batch(labels: Any) -> Any:
    """The labels of a batch; a list of a detector's targets is packed."""
    if isinstance(labels, list | tuple) and labels and isinstance(labels[0], Mapping):
        return torch.stack([packed_target(each) for each in labels])
    return labels


def _label(label: Any) -> Label:
    """A class as a number; other labels as tensors: whole numbers as int64. Targets of a detector are packed."""
    if isinstance(label, Mapping):
        return packed_target(label)
    own = torch.as_tensor(label)
    if own.is_floating_point():
        return own.float()
    return own.long() if own.ndim else int(own)


def _as_input(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError("KD406", f"DATA gives {kind}; pass floating-point tensors, normalized as the net takes them")
    return inputs.float()
