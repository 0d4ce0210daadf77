"""Images a second of a fine-tune: one process of one thread beside several of one thread each, taking turns.

    python benchmarks/processes.py FOLDER --data IMAGES [--processes 2] [--steps 20] [--batch 128] [--rounds 3]

It runs `kdna finetune`, alone and under torchrun, and takes each one's best round: the steps alone, without the looks
at held-out images. It also says what a step costs beyond its images, which no second process takes away: what the
times of a whole batch and of half of one, in one process, leave for a batch of none. A row for results/processes.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from commands import Row, append, machine, table

RESULTS = Path(__file__).parent / "results" / "processes.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--train", default="adapters")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    runs = {
        "one process": (1, given.batch),
        f"{given.processes} processes": (given.processes, given.batch),
        "one process, half the batch": (1, given.batch // 2),
    }
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, (processes, batch) in runs.items():
            speeds[name].append(images_per_second(given, processes, batch))
    row = {"folder": Path(given.folder).name, "batch": given.batch, "processes": given.processes}
    print(summary([append(given.results, row | {"images_per_second": speeds} | machine())]))


def summary(found: Sequence[Row]) -> str:
    """The last row of each machine: rounds of one and of several processes; what a step costs beyond its images."""
    lines = []
    for row in {(row["cpu"], row["processes"], row["batch"]): row for row in found}.values():
        one, several, half = row["images_per_second"].values()
        whole, part = row["batch"] / max(one), row["batch"] // 2 / max(half)
        fixed = f"{max(0.0, 2 * part - whole):.2f} of {whole:.2f} s"
        rounds = [", ".join(f"{speed:.0f}" for speed in speeds) for speeds in (one, several)]
        gains = f"{max(several) / max(one):.1f}, {statistics.median(several) / statistics.median(one):.1f}"
        lines.append([row["cpu"], row["processes"], *rounds, gains, fixed])
    return table(
        ["machine", "processes", "images/s of one", "of all", "speed-up: best, median", "a step beyond its images"],
        lines,
    )


def images_per_second(given: argparse.Namespace, processes: int, batch: int) -> float:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    command = [sys.executable, *launch, "-m", "kdna_convert", "finetune", given.folder, "--data", given.data]
    command += ["--device", "cpu", "--trust-code", "--train", given.train, "--lr", "1e-5", "--batch-size", str(batch)]
    command += ["--steps", str(given.steps), "--save-every", str(given.steps), "--json", "--quiet"]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [*command, "-o", str(Path(scratch) / "tuned")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(json.loads(done.stdout)["finetune"]["images_per_second"])


if __name__ == "__main__":
    main()
