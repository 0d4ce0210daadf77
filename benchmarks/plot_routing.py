r"""The picture of a study of routings, from the rows that benchmarks/routing.py wrote.

pip install -e '.[compare]'
python benchmarks/plot_routing.py benchmarks/results/routing_resnet20_10m.json docs/routing.svg \
    --speed benchmarks/results/routing_resnet20_speed.json

`--speed`: of a run with `--time 0` on a quiet machine, whose throughput is then shown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--speed", type=Path)
    parser.add_argument("--title", default="ResNet-20 on CIFAR-10, the same fine-tune")
    args = parser.parse_args()
    study = json.loads(args.results.read_text())
    timed = study if args.speed is None else json.loads(args.speed.read_text())
    speeds = {row["routing"]: row["throughput"] for row in timed["rows"]}
    plt.rcParams["svg.hashsalt"] = "kdna"
    figure, axes = plt.subplots(figsize=(8.4, 4))
    before = study["rows"][0]["before"]
    axes.axhline(100 * before, color="0.6", linestyle=":", label="original")
    for row in study["rows"]:
        place = (speeds[row["routing"]], 100 * row["after"])
        axes.plot(*place, marker="o", color="C0")
        setting = yaml.safe_load(row["routing"])
        name = setting if isinstance(setting, str) else f"{setting['name']}, K={setting['kernels']}"
        label = f"{name} ({row['params'] / 1e6:.2f} M)"
        axes.annotate(label, place, xytext=(4, 4), textcoords="offset points", size=8)
    axes.set(xlabel="throughput against the dense net", ylabel="top-1, %", title=args.title)
    axes.margins(x=0.25, y=0.2)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(args.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
