"""All nets over the same images, decoded once, and through one timing in which they take turns."""

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
    """A row in the making, and its net where there is one. Not `timed`: it runs as the net of the row before it."""

    row: ComparisonRow
    net: nn.Module | None = None
    timed: bool = True


def judged(entries: Sequence[Entry], images: Images, progress: Progress | None) -> list[Entry]:
    """The entries with top-1, agreement and divergence from the first one's net, which is the original.

    A net that fails on the images, or whose answers are not finite, loses its place and says why; the original's
    failure is the caller's.
    """
    nets = {place: entry.net for place, entry in enumerate(entries) if entry.net is not None}
    rows, labels, problems = _answers(nets, batches(images, BATCH), -(-len(images) // BATCH), progress)
    found = []
    for place, entry in enumerate(entries):
        if place in problems:
            found.append(Entry(replace(entry.row, problem=problems[place])))
            continue
        row = entry.row
        if place in nets and labels is not None:
            row = replace(row, top1=accuracy(rows[place], labels)[0])
        if place in nets and place:
            seen = divergence(rows[place], rows[0])
            row = replace(row, agreement=seen.agreement, kl=seen.kl)
        found.append(replace(entry, row=row))
    return found


def _answers(
    nets: Mapping[int, nn.Module], stream: Iterable[Batch], total: int, progress: Progress | None
) -> tuple[dict[int, Tensor], Tensor | None, dict[int, str]]:
    """Each net's logits by its place, the labels if all images have one, and why a net gave no finite answer."""
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
                    if place == 0:  # the original is not a tool's: its failure is the user's to hear of
                        raise
                    problems[place] = f"{type(error).__name__} on the images: {error}".splitlines()[0]
    rows = {place: torch.cat(own) for place, own in parts.items() if place not in problems}
    problems |= {place: "its logits are not finite" for place, own in rows.items() if not own.isfinite().all()}
    known = [label for label in labels if label is not None]
    return rows, torch.cat(known) if len(known) == len(labels) else None, problems


def timed(entries: Sequence[Entry], example: Tensor, progress: Progress | None) -> tuple[list[ComparisonRow], str]:
    """The rows with their milliseconds, from one run in which the nets take turns; and what that ran on."""
    nets = {str(place): entry.net for place, entry in enumerate(entries) if entry.net is not None and entry.timed}
    timings = {timing.name: timing for timing in benchmark(nets, example, rounds=ROUNDS, progress=progress)}
    rows = [entry.row for entry in entries]
    for name, timing in timings.items():
        rows[int(name)] = replace(rows[int(name)], ms=timing.ms)
    for place, entry in enumerate(entries):
        if entry.net is not None and not entry.timed:
            rows[place] = replace(rows[place], ms=rows[place - 1].ms)
    return rows, timings["0"].device
