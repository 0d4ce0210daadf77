"""Measure all nets on the same images, which are decoded once, and time them in turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...core.specs import Progress
from ...inputs.data import Batch, Images, batches
from ...network.inference import evaluating
from ...stages.evaluate.accuracy import accuracy, divergence, first_output
from ...stages.evaluate.timing import benchmark
from .comparison import ComparisonRow

ROUNDS = 20
BATCH = 100


@dataclass(frozen=True)
class Entry:
    """A row, and its net if there is one. Without `timed` it takes the time of the row before."""

    row: ComparisonRow
    net: nn.Module | None = None
    timed: bool = True


def with_accuracy(entries: Sequence[Entry], images: Images, progress: Progress | None) -> list[Entry]:
    """Add top-1, agreement and KL divergence. The first entry is the original.

    A net that fails on the images, or whose logits are not finite, is replaced by a row with its `problem`. An
    exception of the original is raised.
    """
    nets = {place: entry.net for place, entry in enumerate(entries) if entry.net is not None}
    logits, labels, problems = _logits(nets, batches(images, BATCH), -(-len(images) // BATCH), progress)
    measured = []
    for place, entry in enumerate(entries):
        if place in problems:
            measured.append(Entry(replace(entry.row, problem=problems[place])))
            continue
        row = entry.row
        if place in nets and labels is not None:
            row = replace(row, top1=accuracy(logits[place], labels)[0])
        if place in nets and place:
            distance = divergence(logits[place], logits[0])
            row = replace(row, agreement=distance.agreement, kl=distance.kl)
        measured.append(replace(entry, row=row))
    return measured


def _logits(
    nets: Mapping[int, nn.Module], stream: Iterable[Batch], total: int, progress: Progress | None
) -> tuple[dict[int, Tensor], Tensor | None, dict[int, str]]:
    """The logits of each net by its index, the labels if all images have one, and the problems of nets that failed."""
    parts: dict[int, list[Tensor]] = {place: [] for place in nets}
    labels: list[Tensor | None] = []
    problems: dict[int, str] = {}
    with ExitStack() as stack:
        for net in nets.values():
            stack.enter_context(evaluating(net))
        for done, (inputs, label) in enumerate(stream):
            if progress is not None:
                progress("measure", done, total)
            labels.append(label)
            for place in nets.keys() - problems.keys():
                try:
                    parts[place].append(first_output(nets[place](inputs), len(inputs)).float())
                except Exception as error:
                    if place == 0:  # the original is the user's net, so the user sees the exception
                        raise
                    problems[place] = f"{type(error).__name__} on the images: {error}".splitlines()[0]
    logits = {place: torch.cat(own) for place, own in parts.items() if place not in problems}
    problems |= {place: "its logits are not finite" for place, own in logits.items() if not own.isfinite().all()}
    given = [label for label in labels if label is not None]
    return logits, torch.cat(given) if len(given) == len(labels) else None, problems


def with_times(entries: Sequence[Entry], example: Tensor, progress: Progress | None) -> tuple[list[ComparisonRow], str]:
    """The rows with their milliseconds, from one run in which the nets take turns, and the device."""
    nets = {str(place): entry.net for place, entry in enumerate(entries) if entry.net is not None and entry.timed}
    timings = {timing.name: timing for timing in benchmark(nets, example, rounds=ROUNDS, progress=progress)}
    rows = [entry.row for entry in entries]
    for name, timing in timings.items():
        rows[int(name)] = replace(rows[int(name)], ms=timing.ms)
    for place, entry in enumerate(entries):
        if entry.net is not None and not entry.timed:
            rows[place] = replace(rows[place], ms=rows[place - 1].ms)
    return rows, timings["0"].device
