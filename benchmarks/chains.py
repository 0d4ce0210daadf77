"""Chains of commands on the ResNet-20 of CIFAR-10: cut a converted net, train it to be cut, train between families.

    python benchmarks/chains.py DATA [--only basis] [--again]

Each folder is made from the original or from another folder by one command, and measured by `kdna eval` on the test
images; the commands go to stderr. Rows that benchmarks/results/chains.jsonl has are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines import net_flags
from commands import CommandError, Row, append, kdna, machine, rows, table

RESULTS = Path(__file__).parent / "results" / "chains.jsonl"
NET = "cifar10_resnet20"
LIMIT = 3600  # seconds of a command
TITLES = {"cp": "shared CP", "basis": "shared basis"}
TUNE = ("--train", "shared", "--steps", "150", "--mixup", "1")


@dataclass(frozen=True)
class Link:
    """How a folder is made: from the original, or from the folder of an earlier link.

    Attributes:
        command: the command of kdna with its options.
        start: the link whose folder it takes; empty for the original.
        data: whether it takes images.
    """

    command: tuple[str, ...]
    start: str = ""
    data: bool = True


def links() -> dict[str, Link]:
    """Each folder by its name."""
    cut = ("shrink", "--target-params", "0.35")
    found = {}
    for scheme in TITLES:
        convert = ("convert", "--recipe", f"shared-{scheme}", "--target-params")
        found[f"{scheme}, 50 %"] = Link((*convert, "0.5"))
        found[f"{scheme}, 50 %, nested"] = Link((*convert, "0.5", "--set", "nested=true"))
        found[f"{scheme}, 35 %"] = Link((*convert, "0.35"))
        found[f"{scheme}, cut with data"] = Link(cut, f"{scheme}, 50 %")
        found[f"{scheme}, cut without data"] = Link(cut, f"{scheme}, 50 %", data=False)
        found[f"{scheme}, nested, cut without data"] = Link(cut, f"{scheme}, 50 %, nested", data=False)
    for name, options in (("trained", TUNE), ("sampled", (*TUNE, "--sampled"))):
        found[f"basis, {name}"] = Link(("finetune", *options), "basis, 50 %, nested")
        found[f"basis, {name}, cut without data"] = Link(cut, f"basis, {name}", data=False)
    families = ("convert", "--recipe", "shared-basis", "--target-params", "0.35", "--progressive", "30")
    found["basis, 35 %, trained after each family"] = Link(families)
    found["basis, 35 %, trained at the end"] = Link(("finetune", "--steps", "90"), "basis, 35 %")
    return found


def made(name: str, data: Path, folder: Path) -> Path:
    """The folder of a link in `folder`, made if it is not there. Raises CommandError."""
    link, out = links()[name], folder / name.replace(" %", "").replace(", ", "-").replace(" ", "-")
    if not out.exists():
        verb, *options = link.command
        start = [made(link.start, data, folder), "--trust-code"] if link.start else net_flags(NET, data)
        images = ["--data", data / "cifar10" / "train"] if link.data else []
        kdna(verb, *start, *images, *options, "-o", out, limit=LIMIT)
    return out


def measure(name: str, data: Path, folder: Path) -> Row:
    """The row of a link: what `kdna eval` says of its folder."""
    row: Row = {"task": name}
    try:
        out = made(name, data, folder)
        found, _ = kdna("eval", out, "--data", data / "cifar10" / "test", "--trust-code", limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    return row | {key: found[key] for key in ("params", "bytes", "images", "top1", "agreement", "kl")} | machine()


def cuts(found: Sequence[Row]) -> str:
    """The ways to 35 % of the parameters, for each scheme."""
    ways = {
        "converted to 50 %": "50 %",
        "converted to 35 % directly": "35 %",
        "cut to 35 %, with data": "cut with data",
        "cut to 35 %, nested, no data": "nested, cut without data",
        "cut to 35 %, not nested, no data": "cut without data",
    }
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = [
        [way, *(cell for key in TITLES for cell in _cells(last.get(f"{key}, {name}")))] for way, name in ways.items()
    ]
    heads = [head for title in TITLES.values() for head in (f"{title}: top-1", "agreement", "KL")]
    return table(["", *heads], lines)


def trained_to_be_cut(found: Sequence[Row]) -> str:
    """A nested basis, trained or not, before and after the cut."""
    ways = {
        "not trained": ("50 %, nested", "nested, cut without data"),
        "trained": ("trained", "trained, cut without data"),
        "trained with `--sampled`": ("sampled", "sampled, cut without data"),
    }
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = [
        [way, *(cell for name in both for cell in _cells(last.get(f"basis, {name}")))] for way, both in ways.items()
    ]
    return table(["", "at 50 %: top-1", "agreement", "KL", "cut to 35 %: top-1", "agreement", "KL"], lines)


def progressive(found: Sequence[Row]) -> str:
    """A basis at 35 %: not trained, trained between its families, or at the end."""
    names = {
        "not trained": "35 %",
        "30 steps after each family (`--progressive 30`)": "35 %, trained after each family",
        "90 steps at the end (`kdna finetune`)": "35 %, trained at the end",
    }
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = [[way, *_cells(last.get(f"basis, {name}"))] for way, name in names.items()]
    return table(["", "top-1", "agreement", "KL"], lines)


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    return [f"{100 * row['top1']:.2f}", f"{100 * row['agreement']:.2f} %", f"{row['kl']:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", help="folders whose names contain this text")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in links():
            done = any(row["task"] == name and "failed" not in row for row in rows(given.results))
            if given.only in name and (given.again or not done):
                row = append(given.results, measure(name, given.data, Path(scratch)))
                print(row, file=sys.stderr, flush=True)
    found = rows(given.results)
    print(cuts(found), trained_to_be_cut(found), progressive(found), sep="\n\n")


if __name__ == "__main__":
    main()
