"""The two pictures of accuracy against parameters kept.

python benchmarks/plot.py benchmarks/results/compare_cifar10.json docs/accuracy.svg    # kdna and other tools
python benchmarks/plot.py benchmarks/results/cifar10_resnet56.json docs/recipes.svg    # kdna's recipes
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from kdna_convert.html.chart import INK, MUTED, SERIES, Drawing, chart_file

RECIPES = {
    "accurate": "accurate: shared CP or codebook, repair",
    "balanced": "balanced: shared CP, repair (default)",
    "shared-cp": "shared CP, no repair",
    "shared-basis": "shared basis, no repair",
}
RECIPES_NET, TOOLS_NET = "ResNet-56", "ResNet-32"

Lines = dict[str, list[tuple[float, float]]]


def recipes(results: dict[str, Any]) -> tuple[float, Lines]:
    """The original's top-1, and (parameters kept, top-1) of each recipe, in %."""
    original = next(row for row in results["rows"] if row["recipe"] == "original")
    lines: Lines = {}
    for row in results["rows"]:
        if row["recipe"] in RECIPES:
            kept = 100 * row["params"] / original["params"]
            lines.setdefault(RECIPES[row["recipe"]], []).append((kept, 100 * row["top1"]))
    return 100 * original["top1"], lines


def tools(results: dict[str, Any]) -> tuple[float, Lines]:
    """The original's top-1, and (parameters kept, the better top-1) of each tool, in %."""
    lines: Lines = {}
    for row in results["rows"]:
        if row["net"] == TOOLS_NET:
            top1 = max(row[key][0] for key in ("plain", "batch_norms") if key in row)
            lines.setdefault(row["tool"], []).append((100 * row["keep"], top1))
    original = lines.pop("original")[0]
    return original[1], {tool: [original, *line] for tool, line in lines.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    net, read = (TOOLS_NET, tools) if "tool" in results["rows"][0] else (RECIPES_NET, recipes)
    original, lines = read(results)
    title = f"{net} on CIFAR-10, no training"
    chart_file(args.picture, [Drawing(partial(draw, original, lines, title), title, size=(7.6, 3.6))])


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


if __name__ == "__main__":
    main()
