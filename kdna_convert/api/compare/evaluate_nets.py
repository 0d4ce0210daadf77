"""Measure all nets on the same images, which are decoded once, and time them in turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ...core.comparison import ComparisonRow
from ...core.errors import NumericsError
from ...core.specs import Progress
from ...inputs.data import Batch, Images, batches
from ...network.inference import evaluating
from ...stages.evaluate.outputs import concatenated, images_at_once, split
from ...stages.evaluate.timing import benchmark
from ...tasks import Outputs, Statistics, Task, run
from ..net_task import Metric
from ..nets import task_batches

ROUNDS = 20
BATCH = 100


@dataclass(frozen=True)
class Entry:
    """A row, and its net if there is one. Without `timed` it takes the time of the row before."""

    row: ComparisonRow
    net: nn.Module | None = None
    timed: bool = True


def with_accuracy(
    entries: Sequence[Entry], images: Images, task: Task, metric: Metric | None, progress: Progress | None
) -> list[Entry]:
    """Add the measures of the task: with labels, and against the original, which is the first entry.

    A net that fails on the images, or whose outputs are not finite, is replaced by a row with its `problem`. An
    exception of the original is raised.
    """
    nets = {place: entry.net for place, entry in enumerate(entries) if entry.net is not None}
    total = -(-len(images) // BATCH)
    labeled = (batch if isinstance(batch, tuple) else (batch, None) for batch in task_batches(images, BATCH, task))
    compared, scored, problems = _statistics(nets, labeled, task, total, progress)
    measured = []
    for place, entry in enumerate(entries):
        if place in problems:
            measured.append(Entry(replace(entry.row, problem=problems[place])))
            continue
        row = entry.row
        measures = dict(task.scores(concatenated(scored[place]))) if scored.get(place) else {}
        row = replace(row, top1=measures.pop("top1", None))
        if place in nets and place:
            distance = task.divergence(concatenated(compared[place]))
            measures = {**distance.measures, **measures}
            row = replace(row, agreement=distance.agreement, kl=distance.kl, logit_error=distance.logit_error)
        if place in nets and metric is not None:
            measures["metric"] = metric(nets[place], batches(images, BATCH))
        measured.append(replace(entry, row=replace(row, measures=measures)))
    return measured


def _statistics(
    nets: Mapping[int, nn.Module], stream: Iterable[Batch], task: Task, total: int, progress: Progress | None
) -> tuple[dict[int, list[Statistics]], dict[int, list[Statistics]], dict[int, str]]:
    """By the index of a net: its comparison with net 0, its scores if all images have labels; why nets failed."""
    compared: dict[int, list[Statistics]] = {place: [] for place in nets}
    scored: dict[int, list[Statistics]] = {place: [] for place in nets}
    labeled, problems, at_once = True, dict[int, str](), None
    with ExitStack() as stack:
        for net in nets.values():
            stack.enter_context(evaluating(net))
        for done, (inputs, labels) in enumerate(stream):
            if progress is not None:
                progress("measure", done, total)
            labeled = labeled and labels is not None
            at_once = at_once or images_at_once(nets[0], inputs)
            for part, own_labels in split(inputs, labels, at_once):
                targets: Outputs = ()
                for place in sorted(nets.keys() - problems.keys()):
                    try:
                        outputs = tuple(each.float() for each in run(task, nets[place], part))
                        if not all(each.isfinite().all() for each in outputs):
                            raise NumericsError("KD702", "its outputs are not finite")
                        targets = targets if place else outputs
                        compared[place].append(task.compare(outputs, targets))
                        if labeled and own_labels is not None:
                            scored[place].append(task.score(outputs, own_labels))
                    except NumericsError as error:
                        problems[place] = error.message
                    except Exception as error:
                        if place == 0:  # the original is the user's net, so the user sees the exception
                            raise
                        problems[place] = f"{type(error).__name__} on the images: {error}".splitlines()[0]
    return compared, scored if labeled else {}, problems


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
