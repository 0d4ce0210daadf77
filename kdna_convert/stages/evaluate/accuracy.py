"""Evaluate a net by its task: the measures with labels, and the divergence from the original on any images.

measure = divergence_from(original, batches, task)    # the original's outputs, once
measure(model)                                        # after each stage
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import length_hint

import torch
from torch import Tensor, nn

from ...core.errors import DataError
from ...core.measurements import Divergence, Evaluation
from ...core.processes import count, gather
from ...core.specs import Progress, Totals
from ...network.totals import totals
from ...tasks import CLASSIFY, Outputs, Statistics, Task
from .outputs import Batch, PassedBatch, statistics

# Bytes of the original's outputs that are kept for later measurements. Larger ones are computed again each time.
KEPT = 2**29
# What distinguishes the statistics with labels from those of the comparison.
_LABELED = "labeled "


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    original: nn.Module | None = None,
    task: Task = CLASSIFY,
    require_labels: bool = False,
    metadata: Mapping[str, str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a net in one pass over the batches. In processes.sharing each process runs its share of them.

    Args:
        model: The net.
        batches: Images, with or without labels.
        original: The net to compare with.
        task: What the outputs mean.
        require_labels: Whether images without labels are an error.
        metadata: The metadata of the model's file, for exact `bytes`.
        device: Where the nets are moved, in place; None: where they are.
        progress: Called before each batch.

    Raises:
        DataError: KD401 without images, KD402 for labels of another task, KD403 if labels are required and missing.
        ModelError: KD308 if the outputs are of another task.
        NumericsError: KD702 for outputs that are not finite.
    """
    nets = [net.to(device) if device is not None else net for net in (model, original) if net is not None]
    examples: list[Tensor] = []

    def of(batch: PassedBatch) -> Statistics:
        if not examples:
            examples.append(batch.inputs[:1])
        rows = {"images": torch.ones(len(batch.inputs))} | labeled_rows(task, batch.outputs[0], batch.labels)
        return rows | task.compare(*batch.outputs) if len(batch.outputs) > 1 else rows

    rows = statistics(nets, batches, of, task=task, doing="evaluate", progress=progress)
    if require_labels and not any(name.startswith(_LABELED) for name in rows):
        raise DataError("KD403", "these images have no labels, and accuracy needs them; give folders named by class")
    cost = totals(model, next(own[0] for own in gather(examples) if own), metadata)
    return evaluation_of(rows, cost, task, compared=original is not None)


def labeled_rows(task: Task, outputs: Outputs, labels: Tensor | None) -> Statistics:
    """The statistics with labels, under names that those of a comparison do not have; empty without labels."""
    return {} if labels is None else {_LABELED + name: own for name, own in task.score(outputs, labels).items()}


def evaluation_of(rows: Statistics, cost: Totals, task: Task, *, compared: bool) -> Evaluation:
    """The evaluation of a net, from the statistics of all images. `compared`: they include those of `task.compare`."""
    labeled = {name.removeprefix(_LABELED): own for name, own in rows.items() if name.startswith(_LABELED)}
    scores = task.scores(labeled) if labeled else {}
    distance = task.divergence(rows) if compared else None
    evaluation = Evaluation(
        top1=scores.get("top1"),
        top5=scores.get("top5"),
        images=len(rows["images"]),
        agreement=None,
        kl=None,
        params=cost.params,
        bytes=cost.bytes,
        macs=cost.macs,
        task=task.name,
        measures={name: value for name, value in scores.items() if name not in ("top1", "top5")},
    )
    if distance is None:
        return evaluation
    return replace(
        evaluation,
        agreement=distance.agreement,
        kl=distance.kl,
        logit_error=distance.logit_error,
        from_original=distance.measures,
    )


def divergence(outputs: Outputs, targets: Outputs, task: Task = CLASSIFY) -> Divergence:
    """The divergence of a net's outputs from the original's."""
    return task.divergence(task.compare(outputs, targets))


def divergence_from(
    original: nn.Module, inputs: Iterable[Tensor], task: Task = CLASSIFY
) -> Callable[[nn.Module], Divergence]:
    """A function that measures nets on these batches of inputs. The original's outputs are computed once, here.

    Outputs larger than KEPT are computed again for each net.
    """
    kept = kept_outputs(original, inputs, task)
    return lambda net: task.divergence(compared(net, original, inputs, kept, task))


@dataclass(frozen=True)
class KeptOutputs:
    """The outputs of a net by the number of the batch, in parts, where `at_once` images went through it together."""

    parts: dict[int, list[Outputs]]
    at_once: int


def kept_outputs(net: nn.Module, inputs: Iterable[Tensor], task: Task) -> KeptOutputs | None:
    """The outputs of a net; None where they take more than KEPT bytes, as the first batch or a later one shows."""
    parts: dict[int, list[Outputs]] = {}
    at_once, size, fits = 0, 0, True

    def of(batch: PassedBatch) -> Statistics:
        nonlocal at_once, size
        at_once = batch.at_once
        size += sum(each.nbytes for each in batch.outputs[0])
        parts.setdefault(batch.number, []).append(batch.outputs[0] if size <= KEPT else ())
        return {}

    def while_they_fit() -> Iterator[Tensor]:
        nonlocal fits
        batches = length_hint(inputs, 0)
        for number, batch in enumerate(inputs):
            yield batch
            fits = (size * batches if number == 0 else size) <= KEPT
            if not fits:
                return

    # each of several processes reads its own batches only, which a generator does not know
    statistics([net], while_they_fit() if count() == 1 else inputs, of, task=task)
    return KeptOutputs(parts, at_once) if fits and size <= KEPT else None


def compared(
    net: nn.Module, original: nn.Module, inputs: Iterable[Tensor], kept: KeptOutputs | None, task: Task
) -> Statistics:
    """The statistics of a net and its original, whose outputs are kept or computed again."""
    if kept is None:
        return statistics([net, original], inputs, lambda batch: task.compare(*batch.outputs), task=task)
    places: dict[int, int] = {}

    def of(batch: PassedBatch) -> Statistics:
        place = places[batch.number] = places.get(batch.number, -1) + 1
        return task.compare(batch.outputs[0], kept.parts[batch.number][place])

    return statistics([net], inputs, of, task=task, at_once=kept.at_once)
