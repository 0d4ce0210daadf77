"""DATA in memory: a tensor, a torch Dataset, or an iterable of batches such as a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import DataError
from .images import Batch, concat_labels, same_shape
from .sources import Classes, Label, Sample

Batches = Iterable[Tensor | tuple[Tensor, Tensor | None]]


class TensorSource:
    """Inputs (N, ...) in memory, with labels (N,), with rows of labels (N, length), or without."""

    mapped = False

    def __init__(self, inputs: Tensor, labels: Tensor | None, classes: Classes | None = None) -> None:
        self.classes: Classes = classes or {}
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
        self.labeled = len(self) > 0 and self.sample(0)[1] is not None

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"input {index}"

    def sample(self, index: int) -> Sample:
        inputs, label = _pair(self.dataset[index])
        return _as_input(inputs), None if label is None else _label(label)

    def finish(self, inputs: Tensor) -> Tensor:
        return inputs


def iterate(data: Batches) -> Iterator[Batch]:
    """Each batch, float32, with its labels or None. Raises DataError KD401 without batches, or for other objects."""
    count = 0
    for batch in data:
        given, labels = _pair(batch)
        inputs = _as_input(given)
        count += len(inputs)
        yield inputs, labels
    if not count:
        raise DataError("KD401", "the iterable gave no batch; an iterator can be read only once: pass a list")


def hold(data: Batches, limit: int | None) -> TensorSource:
    """The first `limit` inputs of an iterable of batches, kept in memory."""
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    count = 0
    for batch, batch_labels in iterate(data):
        inputs.append(batch)
        count += len(batch)
        if batch_labels is not None:
            labels.append(batch_labels)
        if limit is not None and count >= limit:
            break
    return TensorSource(
        torch.cat([*same_shape(inputs)])[:limit], concat_labels(labels)[:limit] if len(labels) == len(inputs) else None
    )


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, (tuple, list)) and 1 <= len(item) <= 2:
        return item[0], item[1] if len(item) == 2 else None
    return item, None


def _label(label: Any) -> Label:
    row = torch.as_tensor(label)
    return row.long() if row.ndim == 1 else int(label)


def _as_input(inputs: Any) -> Tensor:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError("KD406", f"DATA gives {kind}; pass floating-point tensors, normalized as the net takes them")
    return inputs.float()
