"""The README's picture from the rows that benchmarks/accuracy.py wrote.

pip install -e '.[compare]'
python benchmarks/plot.py benchmarks/results/cifar10_resnet56.json docs/accuracy.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

LABELS = {
    "accurate": "shared CP and codebooks, repair (accurate)",
    "codebook": "codebook and repair",
    "balanced": "shared CP and repair (default)",
    "shared-cp": "shared CP",
    "shared-basis": "shared basis",
}
FLOOR = 80  # top-1, %: low rank lies below it all along


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    rows = json.loads(args.results.read_text())["rows"]
    plt.rcParams["svg.hashsalt"] = "kdna"
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    original = next(row for row in rows if row["recipe"] == "original")
    axes.axhline(100 * original["top1"], color="0.6", linestyle=":", label="original")
    for recipe, label in LABELS.items():
        mine = sorted((row["params"], row["top1"]) for row in rows if row["recipe"] == recipe)
        if mine:
            kept = [100 * params / original["params"] for params, _ in mine]
            axes.plot(kept, [100 * top1 for _, top1 in mine], marker="o", label=label)
    axes.set(xlabel="parameters kept, %", ylabel="top-1, %", title="ResNet-56 on CIFAR-10, no training")
    axes.set_ylim(bottom=FLOOR)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(args.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
