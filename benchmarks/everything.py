"""The results from nothing: the sweep of zoo.yaml, then each benchmark that needs no more than DATA.

    python benchmarks/everything.py DATA FOLDER [--tools PYTHON] [--only chains] [--list]

Rows are collected in FOLDER/rows, and a stopped run resumes with the next row. At the end, a file that is whole takes
the place of that in benchmarks/results, and tables.py makes tables and pictures. PYTHON is
an interpreter with the tools of `kdna compare`; without it, that comparison is left out. All of it takes about a day of
one core. The times in it are those of this machine: run nothing else. OTHERS has what needs more than DATA.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FOLDED, SHARED = (f"{{sweep}}/jobs/resnet56-shared-cp-params{share}" for share in ("0.35", "0.25"))
RESNET56 = ("examples/cifar_resnet.py:resnet56", "--checkpoint", "{data}/checkpoints/cifar10_resnet56.safetensors")
TRANSFER = ("norms", "lora", "full", "context")


@dataclass(frozen=True)
class Step:
    """A command that adds rows to a file of results.

    Attributes:
        rows: the file.
        command: the benchmark and its arguments; {data} and {sweep} stand for the folders.
        tools: whether it needs the tools of `kdna compare`.
    """

    rows: str
    command: tuple[str, ...]
    tools: bool = False


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
    Step("schemes.jsonl", ("schemes.py", *RESNET56, "--data", "{data}/cifar10/train")),
    Step("growth.jsonl", ("growth.py",)),
    Step("real_size.jsonl", ("real_size.py", "{data}")),
    *(
        Step("latency.jsonl", ("latency.py", "{data}", "--runtime", runtime, "--threads", threads))
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
    """The command of a step, whose rows go to FOLDER/rows."""
    script, *arguments = (part.format(**places) for part in step.command)
    return [python, str(HERE / script), *arguments, "--results", str(places["sweep"] / "rows" / step.rows)]


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
    places = {"data": given.data.resolve(), "sweep": given.folder.resolve()}
    if not (given.only or given.list or sweep(places["data"], places["sweep"])):
        raise SystemExit("the sweep has failed")
    done = [step for step in MEASURED if given.only in " ".join(step.command) and run(step, places, given)]
    if given.list:
        return
    for name in dict.fromkeys(step.rows for step in MEASURED):
        wanted = [step for step in MEASURED if step.rows == name]
        if all(step in done for step in wanted):
            shutil.copyfile(places["sweep"] / "rows" / name, RESULTS / name)
        else:
            print(f"{name} stays as it was: not all of its benchmarks have ended well", file=sys.stderr)
    subprocess.run([sys.executable, str(HERE / "tables.py")], check=True)
    sys.exit(min(1, len(MEASURED) - len(done)))


def run(step: Step, places: Mapping[str, Path], given: argparse.Namespace) -> bool:
    """Whether the step has ended without an error. With --list, it is only printed."""
    python = given.tools if step.tools else sys.executable
    if python is None:
        print(f"left out: {shlex.join(step.command)} needs --tools", file=sys.stderr)
        return False
    command = argument_list(step, places, python)
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    return given.list or subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
