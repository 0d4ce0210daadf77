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
from ..stages.repair.ledger import Ledger, Position, state_of
from ..stages.repair.mend import mend
from ..stages.repair.nets import Nets
from .images import digest_of
from .job import Job

# What a run that can be gone on with keeps in its work folder.
MOMENTS, DATABASE, LEDGER = WORK_FILES = "moments.safetensors", "database.json", "repair.safetensors"
# Alpha of the mixtures of images on which layers are fitted anew, and of those by which a step is judged: what becomes
# of answers that a net is sure of, as of images that it was trained on, says little (docs/decisions/0018).
MIXED = 1.0
UNJUDGED = (
    "no repair (KD127): no images were held back to judge it by; pass --data, and keep calibration.heldout above 0"
)


def ledger_of(job: Job, plan: Plan, work: Path | None) -> Ledger | None:
    """The file that a repair writes down its progress in; its mark says what must be as it was for it to count."""
    if work is None or not job.recipe.repair:
        return None
    settings = job.recipe.model_dump(mode="json", include={"repair", "fit", "calibration", "seed"})
    seen = digest_of(job.calibration, job.recipe.calibration.batch)
    said = json.dumps([settings, to_json(plan), seen], sort_keys=True)
    return Ledger(work / LEDGER, hashlib.sha256(said.encode()).hexdigest())


def repair(
    job: Job,
    converted: nn.Module,
    fits: Sequence[FamilyFit],
    measure: Measure | None,
    ledger: Ledger | None,
    position: Position | None,
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
    nets = Nets(job.loaded.model, converted, job.layers, inputs, settings.memory)
    judge = None if job.heldout is None else judging(job.loaded.model, job.heldout, settings.batch, seed)
    if ledger is not None and position is None:
        position = Position(notes={"fits": [asdict(fit) for fit in fits]}, before=state_of(converted))
        ledger.write(converted, position, now=True)
    steps = [(step.name, step.options) for step in job.recipe.repair]
    done = mend(nets, steps, measure, judge=judge, ledger=ledger, position=position, progress=progress)
    job.notes.extend(_left_out(done))
    return done


def mixtures(images: Images, batch: int, seed: int) -> Mixed:
    """The images, mixed in pairs, as they are read."""
    return Mixed((inputs for inputs, _ in batches(images, batch)), MIXED, seed)


def judging(original: nn.Module, heldout: Images, batch: int, seed: int) -> Measure:
    """The divergence from the original on mixtures of held-back images, by which a step of a repair is kept."""
    return divergence_from(original, list(mixtures(heldout, batch, seed)))


def fits_of(position: Position) -> tuple[FamilyFit, ...]:
    """How the families were fitted, as a stopped run wrote it down."""
    return tuple(FamilyFit(**fit) for fit in position.notes["fits"])


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
