"""The repair of a conversion in the making: its images, what a stopped run left, and what the report says of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from ..core.specs import Plan, Progress, to_json
from ..inputs.data import Images, Mixed, batches
from ..network.folder.report import FamilyFit, StepResult
from ..stages.convert.fit import Measure
from ..stages.evaluate.accuracy import divergence_from
from ..stages.repair.net_pair import NetPair
from ..stages.repair.repair_file import RepairFile, RepairState, copy_state
from ..stages.repair.run_steps import run_steps
from .job import Job
from .splits import digest_of

# The files that a run which can be resumed keeps in its work folder.
MOMENTS, DATABASE, LEDGER = WORK_FILES = "moments.safetensors", "database.json", "repair.safetensors"
# Alpha of the mixtures of images on which layers are fitted anew, and of those by which a step is judged: what becomes
# of answers that a net is sure of, as of images that it was trained on, says little (docs/decisions/0018).
MIXED = 1.0
UNJUDGED = (
    "no repair (KD127): no images were held out to judge it by; pass --data, and keep calibration.heldout above 0"
)


def repair_file(job: Job, plan: Plan, work: Path | None) -> RepairFile | None:
    """The file that a repair resumes from. Its mark is a hash of everything that must match."""
    if work is None or not job.recipe.repair:
        return None
    settings = job.recipe.model_dump(mode="json", include={"repair", "fit", "calibration", "seed"})
    seen = digest_of(job.calibration, job.recipe.calibration.batch)
    parts = json.dumps([settings, to_json(plan), seen], sort_keys=True)
    return RepairFile(work / LEDGER, hashlib.sha256(parts.encode()).hexdigest())


def repair(
    job: Job,
    converted: nn.Module,
    fits: Sequence[FamilyFit],
    measure: Measure | None,
    file: RepairFile | None,
    state: RepairState | None,
    progress: Progress | None,
) -> tuple[StepResult, ...]:
    """The recipe's steps on `converted`, in place; what is worth saying of them is added to the job's notes."""
    if not job.recipe.repair:
        return ()
    if measure is None or job.calibration is None:
        job.notes.append(UNJUDGED)
        return ()
    settings, seed = job.recipe.calibration, job.recipe.seed
    inputs = mixtures(job.calibration, settings.batch, seed)
    nets = NetPair(job.loaded.model, converted, job.layers, inputs, settings.memory)
    judge = None if job.heldout is None else judging(job.loaded.model, job.heldout, settings.batch, seed)
    if file is not None and state is None:
        state = RepairState(notes={"fits": [asdict(fit) for fit in fits]}, before=copy_state(converted))
        file.write(converted, state, now=True)
    steps = [(step.name, step.options) for step in job.recipe.repair]
    done = run_steps(nets, steps, measure, judge=judge, file=file, state=state, progress=progress)
    job.notes.extend(_left_out(done))
    return done


def mixtures(images: Images, batch: int, seed: int) -> Mixed:
    """The images, mixed in pairs, as they are read."""
    return Mixed((inputs for inputs, _ in batches(images, batch)), MIXED, seed)


def judging(original: nn.Module, heldout: Images, batch: int, seed: int) -> Measure:
    """The divergence from the original on mixtures of held-out images, by which a step of a repair is kept."""
    return divergence_from(original, list(mixtures(heldout, batch, seed)))


def fits_of(state: RepairState) -> tuple[FamilyFit, ...]:
    """How the families were fitted, as a stopped run wrote it down."""
    return tuple(FamilyFit(**fit) for fit in state.notes["fits"])


def _left_out(done: Sequence[StepResult]) -> list[str]:
    found = []
    for mended in done:
        for code in sorted(set(mended.left_out.values())):
            names = [name for name, own in mended.left_out.items() if own == code]
            which = f"leaves {_listed(names)} as they are" if names != [""] else "was skipped"
            found.append(f"repair, {mended.step}: {which} ({code})")
    return found


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
