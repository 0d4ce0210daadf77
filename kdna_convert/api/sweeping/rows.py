"""The rows of a sweep: what a command left as a row, and the file `sweep.jsonl` that holds them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...core.atomic import disk_errors
from ...core.errors import FolderError, KdnaError
from ...core.measurements import Evaluation
from ...core.specs import Totals, required
from ...core.sweep_result import Measured, SweepRow
from ...network.folder.contents import read_contents
from ...network.folder.record import CONFIG, OR_FORCE
from .execution import Outcome
from .tasks import PlannedJob

FILE = "sweep.jsonl"
PLAY = 0.0035  # by which a measure of the original may differ: another decoder changes a few of 1,000 images
_ROW = TypeAdapter(SweepRow)
_ERROR = re.compile(r"^kdna: error (KD\d+): (.*)$", re.MULTILINE)
# What an evaluation has beside the measures of its task.
_MEASURES = ("top1", "top5", "agreement", "kl")


def row_of(planned: PlannedJob, outcome: Outcome) -> SweepRow:
    """The row of a job that has ended."""
    job = planned.job
    row: dict[str, Any] = {"job": job.name, "net": job.net.name, "recipe": job.recipe.name}
    row |= {"budget": job.budget.text, "seed": job.seed, "command": planned.command, "mark": planned.mark}
    row |= {"seconds": round(outcome.seconds, 2), "cpu_seconds": round(outcome.cpu_seconds, 2)}
    row |= {"peak_bytes": outcome.peak_bytes, "host": outcome.host, "versions": outcome.versions}
    code, message = _failure(outcome)
    if message is None:
        try:
            row |= _measured(required(planned.task.output), outcome)
        except KdnaError as error:  # the folder was damaged since it was written
            code, message = error.code, error.message
    own = SweepRow(**row, state="done" if message is None else "failed", code=code, message=message)
    return judged(own, planned)


def judged(row: SweepRow, planned: PlannedJob) -> SweepRow:
    """A row that has a net, failed if the original does not score what the grid says now, else done."""
    if row.result is None or row.original is None:
        return row
    code, message = _misfit(row.original, planned.job.net.original)
    return replace(row, state="done" if message is None else "failed", code=code, message=message)


def _failure(outcome: Outcome) -> tuple[str | None, str | None]:
    """The code and the message of a command that failed; two None for one that did not."""
    if outcome.exit_code == 0 and outcome.lost is None:
        return None, None
    errors = [*_ERROR.finditer(outcome.err)]
    if errors:
        code, message = errors[-1].groups()
        return code, message.replace(OR_FORCE, "move it away")  # a sweep has no --force
    if outcome.killed:
        how = outcome.lost or f"it was killed by signal {abs(outcome.exit_code) % 128}"
        return "KD616", f"{how}; often the memory was too small"
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    return None, lines[-1] if lines else f"exit code {outcome.exit_code}"


def _measured(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """The sizes and measures of the original and of the net, and the sums of the folder's files.

    Where an earlier command did the work, the seconds are those of its stages; its threads and memory are not known.
    """
    contents = read_contents(folder)
    run, plan = required(contents.report.run), contents.plan
    last = run.stages[-1]
    answers = {name: getattr(last, name) for name in ("agreement", "kl") if getattr(last, name) is not None}
    heldout = last.from_original | answers
    original = {} if run.original is None else _measures(run.original)
    result = heldout if run.evaluation is None else _measures(run.evaluation)
    sums, spent = dict(contents.record.files), sum(stage.seconds for stage in run.stages)
    earlier = {"seconds": round(spent, 2), "cpu_seconds": 0.0, "peak_bytes": 0} if spent > outcome.seconds else {}
    return {**earlier, "original": _net(plan.original, original), "result": _net(plan.planned, result), "sums": sums}


def _net(totals: Totals, measures: dict[str, float]) -> Measured:
    return Measured(totals.params, totals.bytes, totals.macs, measures)


def _measures(evaluation: Evaluation) -> dict[str, float]:
    """What was measured with labels, and against the original what has no figure with labels, such as PSNR."""
    own = {name: getattr(evaluation, name) for name in _MEASURES if getattr(evaluation, name) is not None}
    return evaluation.from_original | own | evaluation.measures


def _misfit(original: Measured, expected: Mapping[str, float]) -> tuple[str | None, str | None]:
    """The code and the message where the original does not score what the grid says."""
    for name, value in expected.items():
        found = original.measures.get(name)
        if found is None or abs(found - value) > PLAY:
            scored = "was not measured" if found is None else f"scores {found:.4f}"
            why = "check its weights, the size and normalization of its images, and --eval-data"
            return "KD316", f"{name}: the original {scored}, and the grid says {value:g}; {why}"
    return None, None


def read_rows(folder: Path) -> list[SweepRow]:
    """The rows in the order in which they were written. A line that a killed sweep left incomplete is ignored.

    Raises FolderError KD601 if the file cannot be read.
    """
    rows, path = [], folder / FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FolderError("KD601", f"{path} cannot be read: {error.strerror}; move it away") from error
    for line in lines:
        with suppress(ValidationError):
            rows.append(_ROW.validate_json(line))
    return rows


def append_row(folder: Path, row: SweepRow) -> None:
    """Add a row to the file, flushed to the disk. Raises FolderError KD604."""
    path = folder / FILE
    with disk_errors(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        else:
            torn = False
        file.write(b"\n" * torn + _ROW.dump_json(row) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def current(planned: Sequence[PlannedJob], rows: Sequence[SweepRow]) -> dict[str, SweepRow]:
    """The last row of each job, of those that the same command, recipe and checkpoint made."""
    jobs = {each.job.name: each for each in planned}
    last = {row.job: row for row in rows}
    return {name: judged(row, jobs[name]) for name, row in last.items() if name in jobs and row.mark == jobs[name].mark}


def is_done(planned: PlannedJob, rows: Mapping[str, SweepRow]) -> bool:
    """Whether a current row says that the job is done, and its folder is there with all of its files."""
    row = rows.get(planned.job.name)
    return row is not None and row.state == "done" and _is_whole(planned, row)


def overwrites(planned: PlannedJob, rows: Sequence[SweepRow]) -> bool:
    """Whether the job's folder was written for another command, recipe or file, or has lost a file since."""
    written = [row for row in rows if row.job == planned.job.name and row.result is not None]
    damaged = required(planned.task.output).is_dir() and bool(written) and not _is_whole(planned, written[-1])
    return damaged or (bool(written) and written[-1].mark != planned.mark)


def _is_whole(planned: PlannedJob, row: SweepRow) -> bool:
    """Whether the job's folder is there with all of its files."""
    folder = required(planned.task.output)
    return folder.is_dir() and all((folder / name).is_file() for name in (CONFIG, *row.sums))
