"""kdna beside other tools, on the checkpoints: `kdna compare` for each net, its rows in results/compare.jsonl.

    python benchmarks/compare.py DATA [--only resnet20] [--again]

All tools have to be installed, as by `make tools`: its interpreter is .venv-tools/bin/python. Each net must score its
baseline. kdna, too, is measured anew. Nets that the file has are not measured again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from baselines import BASELINES, RIGHT_INPUTS, class_map, net_flags, require_baseline
from commands import CommandError, Row, append, kdna, machine, rows, table

from kdna_convert.api.compare.peers import PEERS

RESULTS = Path(__file__).parent / "results" / "compare.jsonl"
LIBRARIES = ("aimet-torch", "nncodec", "onnxruntime", "tensorly", "tensorly-torch", "torch-pruning")
RECIPES = {"params": "accurate", "bytes": "smallest"}
LIMIT = 4 * 3600  # seconds of a comparison


@dataclass(frozen=True)
class Sizes:
    """A net's name in tables, its unlabeled images below DATA, and its budgets as options of kdna, empty for none."""

    title: str
    images: str
    params: str
    bytes: str


NETS = {
    "cifar10_resnet20": Sizes("ResNet-20", "cifar10/train", "0.5,0.25", "1/8,1/14"),
    "cifar10_resnet32": Sizes("ResNet-32", "cifar10/train", "0.5,0.25", "1/14,1/20"),
    "cifar10_resnet56": Sizes("ResNet-56", "cifar10/train", "0.5,0.25", "1/14,1/20"),
    "imagenet_squeezenet1_1": Sizes("SqueezeNet 1.1", "imagenet/calibration", "0.7,0.5", "1/9"),
    "imagenet_mobilenetv1_075": Sizes("MobileNetV1 x0.75", "imagenet/calibration", "0.7", "1/7"),
    "imagenet_mobilenetv2_100": Sizes("MobileNetV2", "imagenet/calibration", "", "1/8"),
}


def command(name: str, data: Path) -> list[str]:
    """The comparison of a checkpoint's net with all tools, as arguments of kdna."""
    sizes, evaluation = NETS[name], BASELINES[name].images
    names = class_map(data, evaluation)
    images = ["--data", str(data / sizes.images), "--eval", str(data / evaluation)]
    images += [] if names is None else ["--class-map", str(names)]
    budgets = [part for pair in (("--at", sizes.params), ("--bytes", sizes.bytes)) if pair[1] for part in pair]
    recipes = ["--recipe", RECIPES["params"], "--bytes-recipe", RECIPES["bytes"]]
    return ["compare", *net_flags(name, data), *images, *budgets, *recipes]


def measure(name: str, data: Path) -> list[Row]:
    """A row for each tool and budget, the original's first. Raises CommandError."""
    model, checkpoint = BASELINES[name].model, data / "checkpoints" / f"{name}.safetensors"
    require_baseline(model, checkpoint, RIGHT_INPUTS.get(name), "cpu")
    arguments = command(name, data)
    found, cost = kdna(*arguments, limit=LIMIT)
    shared = {
        "images": found["images"],
        "calibration": found["calibration"],
        "command": shlex.join(["kdna", *arguments]).replace(str(data), "DATA"),
        "command_seconds": round(cost.seconds, 1),
        "libraries": {library: metadata.version(library) for library in LIBRARIES},
        **machine(),
    }
    return [{"net": NETS[name].title, "checkpoint": name, **row, **shared} for row in found["rows"]]


def recorded(file: Path = RESULTS) -> list[Row]:
    """The rows of the file, the last of each net, tool and budget, in the order of NETS."""
    last = {(row["net"], row["title"], str(row["rung"])): row for row in rows(file)}
    titles = [sizes.title for sizes in NETS.values()]
    return sorted(last.values(), key=lambda row: titles.index(row["net"]))


def label(row: Row) -> str:
    """The tool of a row, for kdna with the recipe."""
    if row["rung"] is None or row["peer"] != "kdna":
        return str(PEERS[row["peer"]].title if row["peer"] in PEERS else row["title"])
    return f"kdna, `{RECIPES[row['rung']['axis']]}`"


def better(found: Sequence[Row]) -> list[Row]:
    """One row for each net, tool and budget: the one of the higher top-1, where a tool was measured twice."""
    best: dict[tuple[str, str, str], Row] = {}
    for row in found:
        key = row["net"], row["peer"], str(row["rung"])
        if key not in best or (row["top1"] or 0) > (best[key]["top1"] or 0):
            best[key] = row
    return list(best.values())


def by_parameters(titles: Sequence[str]) -> str:
    """Top-1 of each tool at shares of the parameters, the nets side by side; a tool without a result has no figure."""
    found = [row for row in better(recorded()) if row["net"] in titles]
    originals = {row["net"]: row["top1"] for row in found if row["peer"] == "original"}
    cells = {
        (label(row), row["net"], row["rung"]["share"]): row["top1"]
        for row in found
        if row["rung"] and row["rung"]["axis"] == "params"
    }
    columns, places = [""], []
    for net in titles:
        shares = sorted({share for _, of, share in cells if of == net}, reverse=True)
        first, *others = (f"{100 * share:.0f} %" for share in shares)
        columns += [f"{net} ({100 * originals[net]:.2f}): {first}", *others]
        places += [(net, share) for share in shares]
    tools = sorted({tool for tool, _, _ in cells}, key=lambda tool: (-(cells.get((tool, *places[0])) or 0), tool))
    tools.sort(key=lambda tool: not tool.startswith("kdna"))
    lines = []
    for tool in tools:
        scores = [cells.get((tool, *place)) for place in places]
        lines.append([tool, *("" if top1 is None else f"{100 * top1:.2f}" for top1 in scores)])
    return table(columns, lines)


def by_bytes() -> str:
    """Each net and tool in bytes: those of one size, then those with a budget, the largest file first."""
    lines, before = [], ""
    found = better(recorded())
    kept = [row for row in found if row["rung"] is None or row["rung"]["axis"] == "bytes"]
    for row in sorted(kept, key=lambda row: (list(NETS).index(row["checkpoint"]), -(row["bytes"] or 0))):
        name = f"{row['net']} ({row['images']:,} images)" if row["net"] != before else ""
        before = row["net"]
        asked = f" 1/{1 / row['rung']['share']:.0f}" if row["rung"] else ""
        if row["problem"]:
            lines.append([name, label(row) + asked, "failed", "", "", ""])
            continue
        scores = [f"{100 * row['top1']:.2f}", *(["", ""] if row["peer"] == "original" else _closeness(row))]
        lines.append([name, label(row) + asked, f"{row['bytes']:,}", *scores])
    return table(["net", "tool", "bytes", "top-1", "agreement", "KL"], lines, text=2)


def _closeness(row: Row) -> list[str]:
    return [f"{100 * row['agreement']:.2f} %", f"{row['kl']:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", help="nets whose checkpoints' names contain this text")
    parser.add_argument("--again", action="store_true", help="measure nets that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if missing := [peer.missing for peer in PEERS.values() if peer.missing]:
        raise SystemExit("\n".join(missing))
    done = set() if given.again else {row["checkpoint"] for row in rows(given.results)}
    failed = 0
    for name in NETS:
        if given.only not in name or name in done:
            continue
        try:
            for row in measure(name, given.data):
                append(given.results, row)
        except CommandError as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
