"""Each table of results as a function of the rows in benchmarks/results. tables.py puts them into the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import chains
import compact
import compare
import dense_tasks
import finetune_cost
import finetune_gains
import growth
import imagenet
import images
import latency
import loading
import pitch
import processes
import real_size
import startup
import streams
import super_resolution
import task_nets
import transfer
import variants
import zoo
from commands import Row, rows, table

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


def routing_speed() -> str:
    """Throughput of each routing against the dense net, on three nets."""
    nets = {name: _study(f"routing_{name}_speed") for name in ("resnet20", "resnet56", "resnet18")}
    lines = [
        [_routing(name), *(f"{net[name]['throughput']:.2f}" if name in net else "" for net in nets.values())]
        for name in nets["resnet20"]
    ]
    return table(["routing", "ResNet-20, 32 px", "ResNet-56, 32 px", "ResNet-18, 224 px"], lines)


def _before_after(row: Row) -> list[str]:
    return [f"{row['params']:,}", percent(row["before"]), percent(row["after"])]


def _study(name: str) -> dict[str, Row]:
    """The rows of a study of routings, by routing."""
    return {row["routing"]: row for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]}


def _routing(name: str) -> str:
    found = re.fullmatch(r"{name: (\w+), kernels: (\d+)}", name)
    return f"`{found[1]}`, K = {found[2]}" if found else ROUTING_LABELS.get(name, f"`{name}`")


def of_file(summary: Callable[[list[Row]], str], *files: str) -> str:
    """A benchmark's own table of its rows."""
    return summary([row for file in files for row in rows(RESULTS / file)])


def new_task(name: str) -> str:
    """The methods on a task that the net was not trained for."""
    made = transfer.summary(rows(RESULTS / "transfer.jsonl"), name)
    return re.sub(r"{name: (\w+), kernels: (\d+)}", r"`\1`, K = \2", made)


TABLES: dict[str, Callable[[], str]] = {
    "parameters": parameters,
    "bytes": coded,
    "zoo": lambda: zoo.table(zoo.recorded()),
    "tools": partial(compare.by_parameters, ("ResNet-32", "ResNet-20")),
    "tools-resnet56": partial(compare.by_parameters, ("ResNet-56",)),
    "tools-imagenet": partial(compare.by_parameters, ("SqueezeNet 1.1", "MobileNetV1 x0.75")),
    "tools-bytes": compare.by_bytes,
    "finetune-codes": partial(of_file, partial(finetune_gains.summary, coded=True), "finetune_gains.jsonl"),
    "finetune": partial(of_file, partial(finetune_gains.summary, coded=False), "finetune_gains.jsonl"),
    "progressive": partial(of_file, chains.progressive, "chains.jsonl"),
    "cuts": partial(of_file, chains.cuts, "chains.jsonl"),
    "trained-to-be-cut": partial(of_file, chains.trained_to_be_cut, "chains.jsonl"),
    "imagenet": partial(of_file, imagenet.summary, "imagenet.jsonl"),
    "routing": routing,
    "routing-resnet56": routing_resnet56,
    "routing-over-basis": routing_over_basis,
    "transfer-cifar10": partial(new_task, "cifar10"),
    "transfer-digits": partial(new_task, "digits"),
    "transfer-cifar10-300": partial(new_task, "cifar10, 300 steps"),
    "transfer-digits-300": partial(new_task, "digits, 300 steps"),
    "transfer-shapes": partial(new_task, "shapes, 300 steps"),
    "super-resolution": partial(
        of_file, super_resolution.summary, "super_resolution.jsonl", "nncodec_super_resolution.jsonl"
    ),
    "dense-tasks": partial(of_file, dense_tasks.summary, "dense_tasks.jsonl"),
    "pitch": partial(of_file, pitch.summary, "pitch.jsonl"),
    "fastest-forms": partial(of_file, latency.forms, "latency.jsonl"),
    "latency": partial(of_file, latency.summary, "latency.jsonl"),
    "compact": partial(of_file, compact.summary, "compact.jsonl"),
    "streams": partial(of_file, streams.summary, "streams.jsonl"),
    "variants-near": partial(of_file, partial(variants.summary, kind="near"), "variants.jsonl"),
    "variants-far": partial(of_file, partial(variants.summary, kind="far"), "variants.jsonl"),
    "real-size": partial(of_file, partial(real_size.summary, real_size.tasks(Path("DATA"))), "real_size.jsonl"),
    "growth": partial(of_file, growth.summary, "growth.jsonl"),
    "images": partial(of_file, images.summary, "images.jsonl"),
    "task-nets": partial(of_file, task_nets.summary, "task_nets.jsonl"),
    "routing-speed": routing_speed,
    "finetune-cost": partial(of_file, finetune_cost.summary, "finetune_cost.jsonl"),
    "processes": partial(of_file, processes.summary, "processes.jsonl"),
    "loading": partial(of_file, loading.summary, "loading.jsonl"),
    "startup": partial(of_file, startup.summary, "startup.jsonl"),
}
