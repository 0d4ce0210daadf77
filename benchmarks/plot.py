"""The pictures of results, drawn from the rows in benchmarks/results. tables.py writes them."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import compare
import yaml
import zoo
from matplotlib.axes import Axes

from kdna_convert.html.chart import INK, MUTED, SERIES, Drawing, chart_file

RESULTS = Path(__file__).parent / "results"
RECIPES = {
    "accurate": "accurate: shared CP or codebook, repair",
    "balanced": "balanced: shared CP, repair (default)",
    "shared-cp": "shared CP, no repair",
    "shared-basis": "shared basis, no repair",
}
RECIPES_NET, TOOLS_NET = "resnet56", "ResNet-32"

Lines = dict[str, list[tuple[float, float]]]


def recipes() -> tuple[float, Lines]:
    """The original's top-1, and (parameters kept, top-1) of each recipe, in %."""
    lines: Lines = {label: [] for label in RECIPES.values()}
    original = 0.0
    for row in zoo.recorded():
        if row["net"] == RECIPES_NET and row["recipe"] in RECIPES and row["budget"].startswith("params"):
            kept = 100 * row["result"]["params"] / row["original"]["params"]
            original = 100 * row["original"]["measures"]["top1"]
            lines[RECIPES[row["recipe"]]].append((kept, 100 * row["result"]["measures"]["top1"]))
    return original, {label: line for label, line in lines.items() if line}


def tools() -> tuple[float, Lines]:
    """The original's top-1, and (parameters kept, the better top-1) of each tool, in %."""
    lines: Lines = {}
    original = 0.0
    for row in compare.better(compare.recorded()):
        if row["net"] != TOOLS_NET or row["top1"] is None:
            continue
        if row["peer"] == "original":
            original = 100 * row["top1"]
        elif row["rung"] and row["rung"]["axis"] == "params":
            lines.setdefault(compare.label(row).replace("`", ""), []).append(
                (100 * row["rung"]["share"], 100 * row["top1"])
            )
    return original, {tool: [(100.0, original), *line] for tool, line in lines.items()}


def routings() -> tuple[float, dict[str, tuple[float, float]]]:
    """The original's top-1 in %, and (throughput on a quiet machine, top-1 after ten minutes) of each routing."""
    study = _rows("routing_resnet20_10m")
    speeds = {row["routing"]: row["throughput"] for row in _rows("routing_resnet20_speed")}
    points = {}
    for row in study:
        setting = yaml.safe_load(row["routing"])
        name = setting if isinstance(setting, str) else f"{setting['name']}, K = {setting['kernels']}"
        points[f"{name} ({row['params'] / 1e6:.2f} M)"] = speeds[row["routing"]], 100 * row["after"]
    return 100 * study[0]["before"], points


def draw_pictures(folder: Path) -> None:
    """Write accuracy.svg, recipes.svg and routing.svg. Each ends with the digest of what it shows."""
    for name, (drawing, shown) in pictures().items():
        path = folder / f"{name}.svg"
        chart_file(path, [drawing])
        path.write_text(f"{path.read_text().rstrip()}\n{sign(shown)}\n")


def pictures() -> dict[str, tuple[Drawing, Any]]:
    """Each picture by its name, and the figures that it shows."""
    found: dict[str, tuple[Drawing, Any]] = {}
    for name, net, (original, lines) in (("accuracy", TOOLS_NET, tools()), ("recipes", "ResNet-56", recipes())):
        title = f"{net} on CIFAR-10, no training"
        found[name] = Drawing(partial(draw, original, lines, title), title, size=(7.6, 3.6)), (original, lines)
    title = "ResNet-20 on CIFAR-10, ten minutes of training"
    original, points = routings()
    found["routing"] = (
        Drawing(partial(draw_routings, original, points, title), title, size=(7.6, 3.6)),
        (original, points),
    )
    return found


def sign(shown: Any) -> str:
    """The digest of the figures of a picture, as a comment of its file."""
    return f"<!-- rows {hashlib.sha256(json.dumps(shown).encode()).hexdigest()} -->"


def draw(original: float, lines: Lines, title: str, axes: Axes) -> None:
    """The original as a horizontal line, and a line for each recipe or tool; kdna's are thick."""
    axes.axhline(original, color=MUTED, linestyle=":", label="original")
    others = [label for label in lines if not label.startswith("kdna")]
    for label, line in lines.items():
        kept, top1 = zip(*sorted(line), strict=True)
        own = label not in others
        color = INK if own else SERIES[others.index(label) % len(SERIES)]
        axes.plot(kept, top1, marker="o", ms=4, label=label, color=color, linewidth=2.5 if own else 1.2)
    axes.set(xlabel="parameters kept, %", ylabel="top-1, %", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8.5)


def draw_routings(original: float, points: dict[str, tuple[float, float]], title: str, axes: Axes) -> None:
    """A point for each routing."""
    axes.axhline(original, color=MUTED, linestyle=":", label="original")
    for number, (label, place) in enumerate(points.items()):
        marker = "o" if number < len(SERIES) else "s"
        axes.plot(*place, marker, color=SERIES[number % len(SERIES)], label=label)
    axes.set(xlabel="throughput against the dense net", ylabel="top-1, %", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8.5)


def _rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return found
