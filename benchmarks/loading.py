"""Loading a converted folder against loading the dense safetensors, and folded inference against dense, in one run.

    python benchmarks/loading.py FOLDER

Prints medians and ratios. The fold's own matrix products are timed apart.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file

from kdna_convert.inputs.models import example_input
from kdna_convert.inputs.models.building import build
from kdna_convert.inputs.models.names import parse_name
from kdna_convert.network.derive import derived_layers, fold
from kdna_convert.network.folder import load, open_folder, original_of
from kdna_convert.stages.evaluate.timing import benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    conversion = open_folder(args.folder)
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
            "folder": lambda: load(args.folder),
            "folder, folded": lambda: load(args.folder, folded=True),
            "fold products": products,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeat):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(taken[2:]) for name, taken in times.items()}
    for name, median in medians.items():
        print(f"{name:16} {median * 1e3:8.1f} ms   {median / medians['dense']:.2f} x dense")
    rows = benchmark(
        {"original": original, "folded": fold(copy.deepcopy(conversion.model))},
        example_input(conversion.data, args.batch),
        rounds=args.rounds,
    )
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
