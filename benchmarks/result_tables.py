"""Each table of results as a function of the rows in benchmarks/results. tables.py puts them into the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import dense_tasks
import imagenet
import pitch
import super_resolution
import transfer
import zoo
from commands import Row, rows, table
from plot import better_top1

RESULTS = Path(__file__).parent / "results"
RECIPES = {
    "accurate": "`accurate`: shared CP or codebook for each family, repair",
    "balanced": "`balanced` (default): shared CP, repair",
    "shared-cp": "`shared-cp`: shared CP, no repair",
    "shared-basis": "`shared-basis`, no repair",
    "lowrank": "`lowrank`: nothing shared",
}
CODED = {
    "resnet56": ("ResNet-56", (14, 20, 30, 40, 50)),
    "resnet32": ("ResNet-32", (14, 20)),
    "resnet20": ("ResNet-20", (8, 14, 20)),
}
ROUTING_LABELS = {
    "dyconv": "`dyconv`, K = 4",
    "cond": "`cond`, K = 8",
    "partial": "`partial`, of `dyconv`",
    "none": "none",
}


def percent(value: float | None, digits: int = 2) -> str:
    """A share as `93.30`; nothing for None."""
    return "" if value is None else f"{100 * value:.{digits}f}"


def parameters() -> str:
    """ResNet-56: top-1 of each recipe at each share of the parameters."""
    found = {(row["recipe"], row["budget"]): row for row in zoo.recorded() if row["net"] == "resnet56"}
    shares = ("0.5", "0.35", "0.25", "0.2", "0.12")
    lines = []
    for recipe, label in RECIPES.items():
        of = [found.get((recipe, f"params {share}")) for share in shares]  # not every recipe is tried at each
        lines.append([label, *(percent(row["result"]["measures"]["top1"]) if row else "" for row in of)])
    first, *others = (f"{100 * float(share):.0f} %" for share in shares)
    return table(["recipe", f"{first} of the parameters", *others], lines)


def coded() -> str:
    """The CIFAR-10 nets by `smallest`, at shares of the bytes."""
    found = {(row["net"], row["budget"]): row for row in zoo.recorded() if row["recipe"] == "smallest"}
    lines = []
    for net, (label, sizes) in CODED.items():
        for size in sizes:
            row = found[net, f"bytes 1/{size}"]
            of, own = row["original"]["measures"], row["result"]["measures"]
            name = f"{label} ({percent(of['top1'])})" if size == sizes[0] else ""
            scores = [percent(own["top1"]), f"{percent(own['agreement'])} %", f"{own['kl']:.3f}"]
            lines.append([name, f"{row['result']['bytes']:,} B", f"1/{size}", *scores])
    return table(["net (top-1 of the original)", "file", "share", "top-1", "agreement", "KL"], lines)


def tools(nets: Sequence[str], file: str) -> str:
    """Top-1 of each tool at shares of the parameters, the better of two: as the tool leaves the net, and with batch
    norms estimated again."""
    found = [row for row in json.loads((RESULTS / file).read_text())["rows"] if row["net"] in nets]
    cells = {(row["tool"], row["net"], row["keep"]): better_top1(row) for row in found}
    columns, places = [""], []
    for net in nets:
        keeps = sorted({row["keep"] for row in found if row["net"] == net} - {1.0}, reverse=True)
        first, *others = (f"{100 * keep:.0f} %" for keep in keeps)
        columns += [f"{net} ({cells['original', net, 1.0]:.2f}): {first}", *others]
        places += [(net, keep) for keep in keeps]
    names = dict.fromkeys(row["tool"] for row in found if row["tool"] != "original")
    lines = []
    for tool in sorted(names, key=lambda name: not name.startswith("kdna")):
        scores = [cells.get((tool, *place)) for place in places]
        lines.append(
            [tool.replace("accurate", "`accurate`"), *("" if top1 is None else f"{top1:.2f}" for top1 in scores)]
        )
    return table(columns, lines)


def bytes_beside_tools() -> str:
    """Each net and tool: bytes, top-1, agreement and milliseconds of an image."""
    lines, before = [], ""
    for row in json.loads((RESULTS / "compare_bytes.json").read_text())["rows"]:
        name = f"{row['net']} ({row['images']:,} images)" if row["net"] != before else ""
        before = row["net"]
        agreement = "" if row["tool"] == "original" else f"{row['agreement']:g} %"
        size = f"{row['bytes']:,}" if isinstance(row["bytes"], int) else row["bytes"]
        lines.append([name, row["tool"], size, f"{row['top1']:.2f}", agreement, row.get("ms")])
    return table(["net", "tool", "bytes", "top-1", "agreement", "ms"], lines, text=2)


def routing() -> str:
    """ResNet-20 with each routing: parameters, speed, and top-1 after two fine-tunes."""
    slow, fast, timed = (_study(f"routing_resnet20_{name}") for name in ("10m", "5m", "speed"))
    lines = []
    for name in sorted(timed, key=lambda name: -(slow.get(name) or {"after": 0})["after"]):
        after = [percent(study[name]["after"]) if name in study else "" for study in (slow, fast)]
        lines.append([_routing(name), f"{timed[name]['params']:,}", f"{timed[name]['throughput']:.2f}", *after])
    columns = ["routing", "parameters", "speed", "all parameters, 10 min", "norms and routers, 5 min"]
    return table(columns, lines)


def routing_resnet56() -> str:
    """ResNet-56 with each routing, before and after a fine-tune on labels."""
    lines = [
        [_routing(name), f"{row['params']:,}", percent(row["before"]), percent(row["after"])]
        for name, row in _study("routing_resnet56").items()
    ]
    return table(["routing", "parameters", "before", "after five minutes"], lines)


def routing_over_basis() -> str:
    """Both nets with a shared basis of half of the parameters, gates included."""
    small, large = (_study(f"routing_{net}_shared_basis") for net in ("resnet20", "resnet56"))
    lines = [
        [_routing(name), *(cell for row in (small[name], large[name]) for cell in _before_after(row))] for name in small
    ]
    columns = ["routing", "ResNet-20: parameters", "before", "after", "ResNet-56: parameters", "before", "after"]
    return table(columns, lines)


def _before_after(row: Row) -> list[str]:
    return [f"{row['params']:,}", percent(row["before"]), percent(row["after"])]


def _study(name: str) -> dict[str, Row]:
    """The rows of a study of routings, by routing."""
    return {row["routing"]: row for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]}


def _routing(name: str) -> str:
    found = re.fullmatch(r"{name: (\w+), kernels: (\d+)}", name)
    return f"`{found[1]}`, K = {found[2]}" if found else ROUTING_LABELS.get(name, f"`{name}`")


def of_file(summary: Callable[[Sequence[Row]], str], file: str) -> str:
    """A benchmark's own table of its file of rows."""
    return summary(rows(RESULTS / file))


def new_task(name: str) -> str:
    """The methods on a task that the net was not trained for."""
    made = transfer.summary(rows(RESULTS / "transfer.jsonl"), name)
    return re.sub(r"{name: (\w+), kernels: (\d+)}", r"`\1`, K = \2", made)


TABLES: dict[str, Callable[[], str]] = {
    "parameters": parameters,
    "bytes": coded,
    "zoo": lambda: zoo.table(zoo.recorded()),
    "tools": partial(tools, ("ResNet-32", "ResNet-20"), "compare_cifar10.json"),
    "tools-resnet56": partial(tools, ("ResNet-56",), "compare_cifar10.json"),
    "tools-imagenet": partial(tools, ("SqueezeNet 1.1", "MobileNetV1 x0.75"), "compare_imagenet.json"),
    "tools-bytes": bytes_beside_tools,
    "imagenet": partial(of_file, imagenet.summary, "imagenet.jsonl"),
    "routing": routing,
    "routing-resnet56": routing_resnet56,
    "routing-over-basis": routing_over_basis,
    "transfer-cifar10": partial(new_task, "cifar10"),
    "transfer-digits": partial(new_task, "digits"),
    "transfer-cifar10-300": partial(new_task, "cifar10, 300 steps"),
    "transfer-digits-300": partial(new_task, "digits, 300 steps"),
    "transfer-shapes": partial(new_task, "shapes, 300 steps"),
    "super-resolution": partial(of_file, super_resolution.summary, "super_resolution.jsonl"),
    "dense-tasks": partial(of_file, dense_tasks.summary, "dense_tasks.jsonl"),
    "pitch": partial(of_file, pitch.summary, "pitch.jsonl"),
}
