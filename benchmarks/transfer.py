"""ResNet-18 on a new task: each routing beside norms only, LoRA, a new head alone and training everything.

    python benchmarks/transfer.py DATA [--sounds FOLDER] [--only "cifar10, se"]
    python benchmarks/transfer.py DATA --steps 300 --methods norms lora full context
    python benchmarks/transfer.py DATA --only shapes --steps 300

All methods have a new head and the same steps, batches, images, schedule and optimizer (Adam). The learning rate is
that of RATES with the least loss on validation images, which are part of the training data, with a seed of its own.
Then three seeds draw the training images, their order and what is random in the net. Each seed is tested on a third of
the test data of its own; for spoken digits, on other voices; for shapes, over other photographs. Intervals are of
Student's t over the three seeds. Differences are paired by seed. Nothing is chosen on test data. Rows that
benchmarks/results/transfer.jsonl has are not measured again. transfer_data.py has the tasks, transfer_kinds.py their
heads and measures; benchmarks/spoken_digits.py makes the sounds.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from baselines import require_baseline
from commands import Row, append, machine, rows, table
from scipy.stats import t as student
from torch import nn
from transfer_data import TASKS_BY_NAME, Labeled, NewTask, augmented
from transfer_kinds import MEASURES, Kind
from transfer_methods import LORA, METHODS, NORMS, Prepared, lora_rank, prepare

from kdna_convert.core.heap import keep_freed
from kdna_convert.inputs.models import load_model
from kdna_convert.routing.temperature import anneal

RESULTS = Path(__file__).parent / "results" / "transfer.jsonl"
NET = "imagenet_resnet18"
TRAINING_STEPS, BATCH = 120, 16
GRID_STEPS = 48  # of a run that only chooses the learning rate
RATES = (2e-4, 1e-3, 5e-3)  # of what a method trains besides the head, and of the head that is trained alone
HEAD_RATE = 5e-3
WARM_UP = 0.1  # of the steps
GRID_SEED, SEEDS = 100, (0, 1, 2)
COLUMNS = ("method", "trained", "learning rate", "{measure}", "minus norms only", "minus LoRA", "seconds")


@dataclass(frozen=True)
class Bench:
    """The net, the new task, the file of rows, a function that gives LoRA's rank, and the steps of a seed's run."""

    original: nn.Module
    name: str
    task: NewTask
    results: Path
    rank: Callable[[], int]
    steps: int = TRAINING_STEPS

    def found(self, task: str) -> Row | None:
        return next((row for row in reversed(rows(self.results)) if row["task"] == task), None)


def grid_row(bench: Bench, method: str, rate: float) -> Row:
    """Loss and measure on the validation images after training at this rate."""
    run, seconds = trained(bench, method, rate, GRID_SEED, GRID_STEPS)
    row = _row(bench, method, f"rate {rate:g}", run) | {"steps": GRID_STEPS, "rate": rate, "seed": GRID_SEED}
    loss, percent = judged(run.model, bench.task.kind, bench.task.validation)
    return row | {"loss": loss, "validation": percent, "seconds": round(seconds, 1)}


def seed_row(bench: Bench, method: str, seed: int) -> Row | None:
    """The measure on the test images of a seed, at the rate that the validation images chose; None before that."""
    rates = [bench.found(f"{bench.name}, {method}, rate {rate:g}") for rate in RATES]
    tried = {row["rate"]: row["loss"] for row in rates if row is not None}
    if len(tried) < len(RATES):
        return None
    rate = min(tried, key=lambda rate: tried[rate])
    run, seconds = trained(bench, method, rate, seed, bench.steps)
    row = _row(bench, method, f"seed {seed}", run) | {
        "steps": bench.steps,
        "rate": rate,
        "seed": seed,
        "chosen_from": tried,
    }
    kind = bench.task.kind
    return row | {kind.measure: judged(run.model, kind, bench.task.tests[seed])[1], "seconds": round(seconds, 1)}


def _row(bench: Bench, method: str, what: str, run: Prepared) -> Row:
    row: Row = {"task": f"{bench.name}, {method}, {what}", "data": bench.name, "method": method, **bench.task.about}
    row |= {"batch": BATCH, "trained": sum(parameter.numel() for parameter in (*run.head, *run.others))}
    row |= {"params": sum(parameter.numel() for parameter in run.model.parameters()), "rank": run.rank}
    return row | machine() | {"threads": torch.get_num_threads()}


def trained(bench: Bench, method: str, rate: float, seed: int, steps: int) -> tuple[Prepared, float]:
    """A net after so many steps, and the seconds that they took."""
    data = bench.task.train(seed, steps * BATCH)
    kind = bench.task.kind
    run = prepare(method, bench.original, kind, data.images, seed, bench.rank() if method == LORA else None)
    run.model.eval()  # the statistics of its batch norms stay, as in `kdna finetune`
    groups = [{"params": run.head, "lr": HEAD_RATE if run.others else rate}, {"params": run.others}]
    optimizer = torch.optim.Adam(groups[: 1 + bool(run.others)], rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share((step + 0.5) / steps))
    generator = torch.Generator().manual_seed(seed)
    began = time.perf_counter()
    for step, batch in enumerate(zip(data.images.split(BATCH), data.labels.split(BATCH), strict=True)):
        anneal(run.model, step / steps)
        images, labels = augmented(Labeled(*batch), bench.task, generator)
        with torch.autocast("cpu", torch.bfloat16):
            loss = kind.loss(run.model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    anneal(run.model, 1.0)
    return run, time.perf_counter() - began


def _share(done: float) -> float:
    """The share of the learning rate after a share of the steps: a linear rise, then half a cosine to zero."""
    if done < WARM_UP:
        return done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def judged(model: nn.Module, kind: Kind, data: Labeled) -> tuple[float, float]:
    """The mean cross-entropy, and the measure in %."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat([model(images) for images in data.images.split(100)]).float()
    return float(kind.loss(logits, data.labels)), kind.percent(logits, data.labels)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % confidence interval by Student's t; infinite for a single value."""
    if len(values) < 2:
        return mean(values), math.inf
    return mean(values), float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def summary(found: Sequence[Row], name: str) -> str:
    """The table of a task: the methods that have a row of every seed."""
    measure = next(key for key in MEASURES for row in found if row["data"] == name and key in row)
    by_method = {method: _by_seed(found, name, method, measure) for method in METHODS}
    lines = []
    for own in by_method.values():
        if len(own) < len(SEEDS):
            continue
        first = own[SEEDS[0]]
        percent = _shown(interval([own[seed][measure] for seed in SEEDS]), "")
        others = [by_method[other] for other in (NORMS, LORA)]
        pairs = [_difference(own, other, measure) if other is not own else "" for other in others]
        seconds = f"{mean(own[seed]['seconds'] for seed in SEEDS):.0f}"
        lines.append([_label(first), f"{first['trained']:,}", f"{first['rate']:g}", percent, *pairs, seconds])
    return table([column.format(measure=MEASURES[measure]) for column in COLUMNS], lines)


def _by_seed(found: Sequence[Row], name: str, method: str, measure: str) -> dict[int, Row]:
    return {row["seed"]: row for row in found if row["data"] == name and row["method"] == method and measure in row}


def _difference(own: dict[int, Row], other: dict[int, Row], measure: str) -> str:
    if len(other) < len(SEEDS):
        return ""
    return _shown(interval([own[seed][measure] - other[seed][measure] for seed in SEEDS]), "+")


def _shown(value: tuple[float, float], sign: str) -> str:
    return f"{value[0]:{sign}.1f} ± {value[1]:.1f}"


def _label(row: Row) -> str:
    return f"{row['method']}, rank {row['rank']}" if row["rank"] else row["method"]


def missing(bench: Bench, method: str, only: str) -> Iterator[Row]:
    """Measure the rows of a method that are asked for and not known: all learning rates, then the seeds."""
    for rate in RATES:
        task = f"{bench.name}, {method}, rate {rate:g}"
        if only in task and bench.found(task) is None:
            yield grid_row(bench, method, rate)
    for seed in SEEDS:
        task = f"{bench.name}, {method}, seed {seed}"
        row = seed_row(bench, method, seed) if only in task and bench.found(task) is None else None
        if row is not None:
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--sounds", type=Path, help="where the sounds are, or are written; default: a temporary folder")
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'digits, se'")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="only these")
    parser.add_argument("--steps", type=int, default=TRAINING_STEPS, help="of a seed's run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        measure_all(given, given.sounds or Path(scratch))
    found = rows(given.results)
    for name in dict.fromkeys(row["data"] for row in found):
        print(f"\n{name}\n\n{summary(found, name)}")


def measure_all(given: argparse.Namespace, sounds: Path) -> None:
    checkpoint = given.data / "checkpoints" / f"{NET}.safetensors"
    require_baseline("torchvision:resnet18", checkpoint)
    original = load_model("torchvision:resnet18", checkpoint=str(checkpoint)).model
    ranks: list[int] = []

    def rank() -> int:
        if not ranks:
            ranks.append(lora_rank(original, torch.zeros(16, 3, 64, 64)))
        return ranks[0]

    benches = [
        Bench(original, _named(name, given.steps), make(given.data, sounds), given.results, rank, given.steps)
        for name, make in TASKS_BY_NAME.items()
        if _asked(name, given.only)
    ]
    for bench, method in product(benches, given.methods):
        for row in missing(bench, method, given.only):
            print(append(given.results, row), file=sys.stderr, flush=True)


def _named(name: str, steps: int) -> str:
    """A task in the rows: with other steps than TRAINING_STEPS, it is another one."""
    return name if steps == TRAINING_STEPS else f"{name}, {steps} steps"


def _asked(name: str, only: str) -> bool:
    """Whether rows of a task may contain the text."""
    others = [other for other in TASKS_BY_NAME if other != name]
    return not any(other in only for other in others)


if __name__ == "__main__":
    keep_freed()  # as the command line does
    main()
