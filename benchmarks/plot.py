"""The two pictures of accuracy against parameters kept.

pip install -e '.[compare]'
python benchmarks/plot.py benchmarks/results/compare_cifar10.json docs/accuracy.svg    # kdna and other tools
python benchmarks/plot.py benchmarks/results/cifar10_resnet56.json docs/recipes.svg    # kdna's recipes
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

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
    plt.rcParams["svg.hashsalt"] = "kdna"
    figure, axes = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
    axes.axhline(original, color="0.6", linestyle=":", label="original")
    for label, line in lines.items():
        kept, top1 = zip(*sorted(line), strict=True)
        axes.plot(kept, top1, marker="o", label=label, linewidth=2.5 if label.startswith("kdna") else 1.2)
    axes.set(xlabel="parameters kept, %", ylabel="top-1, %", title=f"{net} on CIFAR-10, no training")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(args.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
