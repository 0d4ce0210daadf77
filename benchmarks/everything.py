"""The results from nothing: the sweep of zoo.yaml, then each benchmark that needs no more than DATA.

    python benchmarks/everything.py DATA FOLDER [--tools PYTHON] [--only chains] [--list]

The sweep is in FOLDER/sweep, rows are collected in FOLDER/rows, and a stopped run resumes with the next row. At the
end, a file whose benchmarks all ended without a failed row takes the place of that in benchmarks/results, and tables.py
makes tables and pictures. Rows of an old FOLDER are not measured again: take a new one after a change of the code.
PYTHON is an interpreter with the tools of `kdna compare`; without it, that comparison is left out. All of it takes a
day of one core or so. The times in it are those of this machine: run nothing else. OTHERS has what needs more than
DATA.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import rows

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FOLDED, SHARED = (f"{{sweep}}/jobs/resnet56-shared-cp-params{share}" for share in ("0.35", "0.25"))
TRANSFER = ("norms", "lora", "full", "context")


@dataclass(frozen=True)
class Step:
    """A command that adds rows to a file of results.

    Attributes:
        rows: the file.
        command: the benchmark and its arguments; {data} and {sweep} stand for the folders.
        tools: whether it needs the tools of `kdna compare`.
        threads: of each process, None for all cores.
    """

    rows: str
    command: tuple[str, ...]
    tools: bool = False
    threads: int | None = 1


MEASURED = (
    Step("startup.jsonl", ("startup.py",)),
    Step("loading.jsonl", ("loading.py", FOLDED)),
    Step("finetune_cost.jsonl", ("finetune_cost.py", SHARED)),
    Step("processes.jsonl", ("processes.py", SHARED, "--data", "{data}/cifar10/train")),
    Step("chains.jsonl", ("chains.py", "{data}")),
    Step("finetune_gains.jsonl", ("finetune_gains.py", "{sweep}", "{data}")),
    Step("compare.jsonl", ("compare.py", "{data}"), tools=True),
    Step("imagenet.jsonl", ("imagenet.py", "{data}")),
    Step("super_resolution.jsonl", ("super_resolution.py", "{data}")),
    Step("images.jsonl", ("images.py", "{data}")),
    Step("growth.jsonl", ("growth.py",)),
    Step("real_size.jsonl", ("real_size.py", "{data}"), threads=None),
    *(
        Step("latency.jsonl", ("latency.py", "{data}", "--runtime", runtime, "--threads", threads), threads=None)
        for runtime, threads in (("onnxruntime", "1"), ("onnxruntime", "2"), ("openvino", "1"))
    ),
    Step("streams.jsonl", ("streams.py",)),
    *(Step("variants.jsonl", ("variants.py", kind)) for kind in ("near", "far")),
    *(Step("transfer.jsonl", ("transfer.py", "{data}", "--only", task)) for task in ("cifar10", "digits")),
    *(
        Step("transfer.jsonl", ("transfer.py", "{data}", "--only", task, "--steps", "300", "--methods", *TRANSFER))
        for task in ("cifar10", "digits")
    ),
    Step("transfer.jsonl", ("transfer.py", "{data}", "--only", "shapes", "--steps", "300")),
    Step("task_nets.jsonl", ("task_nets.py",)),
)
# Files of results that are measured by hand, and what they need; benchmarks/README.md has the commands.
OTHERS = {
    "compact.jsonl": "folders of its own",
    "dense_tasks.jsonl": "nets that the examples train",
    "pitch.jsonl": "sounds",
    "nncodec_super_resolution.jsonl": "an environment of NNCodec",
    "nncodec.jsonl": "an environment of NNCodec",
    "routing_*.json": "studies of equal minutes, not of equal steps",
    "coverage.jsonl": "two cores for hours",
    "expected.json": "databases of predicted errors",
}


def sweep(data: Path, folder: Path) -> bool:
    """Run the sweep of zoo.yaml and record its rows. A failed job is a row, not an error."""
    grid, kdna = str(HERE / "zoo.yaml"), (sys.executable, "-m", "kdna_convert")
    own = {**os.environ, "DATA": str(data)}
    done = subprocess.run([*kdna, "sweep", grid, "-o", str(folder)], env={"OMP_NUM_THREADS": "1", **own}, check=False)
    if done.returncode not in (0, 3):
        return False
    return subprocess.run([sys.executable, str(HERE / "zoo.py"), str(folder)], env=own, check=False).returncode == 0


def argument_list(step: Step, places: Mapping[str, Path], python: str) -> list[str]:
    """The command of a step, whose rows go to the folder of rows."""
    script, *arguments = (part.format(**places) for part in step.command)
    return [python, str(HERE / script), *arguments, "--results", str(places["rows"] / step.rows)]


def run(step: Step, places: Mapping[str, Path], python: str) -> bool:
    """Whether the step has ended without an error and without a failed row."""
    command = argument_list(step, places, python)
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    file = places["rows"] / step.rows
    known = len(rows(file))
    threads = {} if step.threads is None else {"OMP_NUM_THREADS": str(step.threads)}
    done = subprocess.run(command, env={**os.environ, **threads}, check=False)
    return done.returncode == 0 and not any("failed" in row for row in rows(file)[known:])


def take(done: Sequence[Step], chosen: Sequence[Step], folder: Path) -> list[str]:
    """Put each file of rows that is whole in place of the recorded one. Returns the names of the others."""
    left = []
    for name in dict.fromkeys(step.rows for step in chosen):
        if all(step in done for step in MEASURED if step.rows == name):
            shutil.copyfile(folder / name, RESULTS / name)
        else:
            left.append(name)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--tools", metavar="PYTHON", help="an interpreter with the tools of `kdna compare`")
    parser.add_argument("--only", default="", help="benchmarks whose commands contain this text; no sweep")
    parser.add_argument("--list", action="store_true", help="print the commands, and run nothing")
    given = parser.parse_args()
    if not (given.data / "checkpoints").is_dir():
        raise SystemExit(f"{given.data} has no folder checkpoints/")
    folder = given.folder.resolve()
    places = {"data": given.data.resolve(), "sweep": folder / "sweep", "rows": folder / "rows"}
    pythons = {step: given.tools if step.tools else sys.executable for step in MEASURED}
    chosen = [step for step in MEASURED if given.only in " ".join(step.command) and pythons[step]]
    if given.list:
        for step in chosen:
            print(shlex.join(argument_list(step, places, pythons[step])))
        return
    if not (given.only or sweep(places["data"], places["sweep"])):
        raise SystemExit("the sweep has failed")
    done = [step for step in chosen if run(step, places, pythons[step])]
    left = take(done, chosen, places["rows"])
    subprocess.run([sys.executable, str(HERE / "tables.py")], check=True)
    if left:
        raise SystemExit(f"not all benchmarks of these ended well, and they stay as they were: {', '.join(left)}")


if __name__ == "__main__":
    main()
