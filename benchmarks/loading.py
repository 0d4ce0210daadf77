"""Loading a converted folder against loading the dense safetensors, and folded inference against dense, in one run.

    python benchmarks/loading.py FOLDER

Medians and ratios: a row for results/loading.jsonl. The fold's own matrix products are timed apart. Nothing else should
run on the machine.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from commands import Row, append, machine, table
from safetensors.torch import load_file, save_file

from kdna_convert.inputs.models import example_input
from kdna_convert.inputs.models.building import build
from kdna_convert.inputs.models.names import parse_name
from kdna_convert.network.derive import derived_layers, fold
from kdna_convert.network.folder import load, open_folder, original_of
from kdna_convert.stages.evaluate.timing import benchmark

RESULTS = Path(__file__).parent / "results" / "loading.jsonl"
WAYS = {
    "dense": "building the net and loading the dense safetensors",
    "folder, folded": "`load(folder, folded=True)`",
    "fold products": "of which the fold's matrix products",
    "folder": "`load(folder)`, derived",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    conversion = open_folder(args.folder, trust_code=True)
    original = original_of(conversion).model
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        save_file(original.state_dict(), file.name)

        def dense() -> None:
            net = build(parse_name(conversion.plan.model.name), pretrained=False)
            net.load_state_dict(load_file(file.name))

        def products() -> None:
            with torch.no_grad():
                for derived in derived_layers(conversion.model).values():
                    derived()

        ways: dict[str, Callable[[], object]] = {
            "dense": dense,
            "folder, folded": lambda: load(args.folder, folded=True, trust_code=True),
            "fold products": products,
            "folder": lambda: load(args.folder, trust_code=True),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeat):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - began)
    pair = benchmark(
        {"original": original, "folded": fold(copy.deepcopy(conversion.model))},
        example_input(conversion.data, args.batch),
        rounds=args.rounds,
    )
    row = {
        "folder": Path(args.folder).name,
        "milliseconds": {name: round(1e3 * statistics.median(taken[2:]), 2) for name, taken in times.items()},
        "batch": args.batch,
        "forward": {timing.name: round(timing.ms, 2) for timing in pair},
        **machine(),
    }
    print(summary([append(args.results, row)]))


def summary(found: Sequence[Row]) -> str:
    """The last row: each way to load, and a forward pass."""
    row = found[-1]
    loads = row["milliseconds"]
    lines = [[WAYS[name], f"{took:.1f}", f"{took / loads['dense']:.2f}"] for name, took in loads.items()]
    folded, dense = row["forward"]["folded"], row["forward"]["original"]
    lines.append([f"a batch of {row['batch']} through the folded net", f"{folded:.1f}", f"{folded / dense:.3f}"])
    return table([f"`{row['folder']}`", "ms", "of the original"], lines)


if __name__ == "__main__":
    main()
