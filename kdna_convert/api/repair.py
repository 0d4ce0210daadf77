"""Repair during a conversion: the images, the state of a stopped run, and the notes of the report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from ..core.measurements import Divergence
from ..core.specs import Plan, Progress, to_json
from ..inputs.data import Images, Mixed, batches
from ..network.folder.report import FamilyFit, StepResult
from ..stages.convert.fit import Measure
from ..stages.evaluate.accuracy import divergence_from
from ..stages.repair.net_pair import NetPair, walk_memory
from ..stages.repair.repair_file import RepairFile, RepairState, copy_state
from ..stages.repair.run_steps import run_steps
from ..tasks import Task
from .job import Job
from .splits import digest_of

# Files in the work folder of a run that can be resumed.
MOMENTS, DATABASE, LEDGER = WORK_FILES = "moments.safetensors", "database.json", "repair.safetensors"
# What the state of a repair counts. A file of an earlier version counts something else, and is ignored.
COUNTS = "layers"
# Alpha of the image mixtures on which layers are refitted, and of those on which a step is judged. A net is certain of
# its training images, so changes of its logits on them say little (docs/decisions/0018).
MIXED = 1.0
UNJUDGED = (
    "no repair (KD127): no images were held out to judge it by; pass --data, and keep calibration.heldout above 0"
)


def repair_file(job: Job, plan: Plan, work: Path | None) -> RepairFile | None:
    """The file that a repair resumes from. Its mark is a hash of everything that must match."""
    if work is None or not job.recipe.repair:
        return None
    settings = job.recipe.model_dump(mode="json", include={"repair", "fit", "calibration", "seed", "task"})
    images = digest_of(job.calibration, job.recipe.calibration.batch)
    parts = json.dumps([COUNTS, settings, to_json(plan), images], sort_keys=True)
    return RepairFile(work / LEDGER, hashlib.sha256(parts.encode()).hexdigest())


def repair(
    job: Job,
    converted: nn.Module,
    fits: Sequence[FamilyFit],
    measure: Measure | None,
    first: Divergence | None,
    file: RepairFile | None,
    state: RepairState | None,
    progress: Progress | None,
) -> tuple[StepResult, ...]:
    """Run the repair steps of the recipe on `converted`, in place. Skipped layers are added to the job's notes."""
    if not job.recipe.repair:
        return ()
    if measure is None or job.calibration is None:
        job.notes.append(UNJUDGED)
        return ()
    settings, seed = job.recipe.calibration, job.recipe.seed
    inputs = mixtures(job.calibration, settings.batch, seed)
    original = job.loaded.model
    nets = NetPair(original, converted, job.layers, inputs, walk_memory(settings.memory))
    nets.apart = job.task.apart(original)
    if job.recipe.repair_time is not None:
        nets.deadline = time.monotonic() + job.recipe.repair_time
    judge = None if job.heldout is None else judging(original, job.heldout, settings.batch, seed, job.task)
    if file is not None and state is None:
        state = RepairState(notes={"fits": [asdict(fit) for fit in fits]}, before=copy_state(converted))
        file.write(converted, state, now=True)
    steps = [(step.name, step.options) for step in job.recipe.repair]
    done = run_steps(nets, steps, measure, judge=judge, first=first, file=file, state=state, progress=progress)
    job.notes.extend(_left_out(done))
    return done


def mixtures(images: Images, batch: int, seed: int) -> Mixed:
    """The images, mixed in pairs while they are read."""
    return Mixed((inputs for inputs, _ in batches(images, batch)), MIXED, seed)


def judging(original: nn.Module, heldout: Images, batch: int, seed: int, task: Task) -> Measure:
    """The divergence from the original on mixtures of held-out images, which decides whether a step is kept."""
    return divergence_from(original, list(mixtures(heldout, batch, seed)), task)


def fits_of(state: RepairState) -> tuple[FamilyFit, ...]:
    """The fits of the families, as a stopped run recorded them."""
    return tuple(FamilyFit(**fit) for fit in state.notes["fits"])


def _left_out(done: Sequence[StepResult]) -> list[str]:
    notes = []
    for mended in done:
        for code in sorted(set(mended.left_out.values())):
            names = [name for name, own in mended.left_out.items() if own == code]
            which = f"leaves {_listed(names)} as they are" if names != [""] else "was skipped"
            notes.append(f"repair, {mended.step}: {which} ({code})")
    return notes


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
