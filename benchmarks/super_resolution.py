"""Real-ESRGAN converted to shares of its parameters and bytes: PSNR against the original, time and memory.

    python benchmarks/super_resolution.py DATA [--only smallest] [--again]

Each row is `kdna convert` and `kdna eval`, each in a process of its own; the commands go to stderr. 64 parts of 64 x 64
pixels of DATA/imagenet/calibration_diverse calibrate, 12 of them held out; the figures are of 100 parts of
DATA/imagenet/eval. int8 and int4 are one scale per channel, without calibration. Rows that
benchmarks/results/super_resolution.jsonl has are not measured again; those of NNCodec were typed from `kdna compare`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import CommandError, Row, append, kdna, machine, rows, stages, table

RESULTS = Path(__file__).parent / "results" / "super_resolution.jsonl"
PARTS, HELDOUT, MEASURED = 64, 12, 100
LIMIT = 7200  # seconds of a command
COLUMNS = ("recipe", "target", "params", "bytes", "PSNR, dB", "SSIM", "CPU min", "GB")


@dataclass(frozen=True)
class Conversion:
    """A recipe with its size; a codec of one size has none."""

    recipe: str
    target: str = ""

    @property
    def name(self) -> str:
        return f"{self.recipe} {self.target}".strip()

    @property
    def flags(self) -> list[str]:
        if not self.target:
            return ["--scheme", "dense", "--codec", self.recipe]
        kind, size = self.target.split()
        return ["--recipe", self.recipe, f"--target-{kind}", size]


CONVERSIONS = (
    Conversion("int8"),
    Conversion("int4"),
    *(Conversion("smallest", f"bytes {size}") for size in ("1/4", "1/8", "1/14")),
    *(Conversion("accurate", f"params {share}") for share in ("50%", "35%", "25%")),
)


def measure(conversion: Conversion, data: Path, out: Path) -> Row:
    """One row: the conversion's cost, and what `kdna eval` says."""
    checkpoint = data / "checkpoints" / "realesrgan_x4plus_anime.safetensors"
    net = ["examples/realesrgan.py:x4plus_anime", "--checkpoint", checkpoint]
    split = ["--set", f"calibration.images={PARTS - HELDOUT}", "--set", f"calibration.heldout={HELDOUT}"]
    images = ["--data", data / "imagenet" / "calibration_diverse", "--crop", "middle"]
    row: Row = {"task": conversion.name, "recipe": conversion.recipe, "target": conversion.target}
    try:
        report, cost = kdna("convert", *net, *conversion.flags, *images, *split, "-o", out, limit=LIMIT)
        seen = ["--data", data / "imagenet" / "eval", "--limit", MEASURED]
        evaluation, _ = kdna("eval", out, "--trust-code", *seen, limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    measured = {key: evaluation[key] for key in ("params", "bytes", "logit_error", "from_original")}
    return row | cost.row | {"stages": stages(report), "heldout": report["divergence"]} | measured | machine()


def summary(found: Sequence[Row]) -> str:
    """The table of the rows, the last of each conversion, without those of the larger net with random weights."""
    last = {row["task"]: row for row in found if "failed" not in row and "x4plus" not in row["task"]}
    lines = []
    for row in last.values():
        psnr, ssim = (row["from_original"][name] for name in ("psnr", "ssim"))
        cost = f"{row['cpu_seconds'] / 60:.1f}" if "cpu_seconds" in row else None
        size = [f"{row['params']:,}", f"{row['bytes']:,}"]
        lines.append([row["recipe"], row["target"], *size, f"{psnr:.2f}", f"{ssim:.4f}", cost, row.get("peak_gb")])
    return table(COLUMNS, lines, text=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'smallest bytes 1/8'")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for conversion in CONVERSIONS:
        done = any(row["task"] == conversion.name and "failed" not in row for row in rows(given.results))
        if given.only not in conversion.name or (done and not given.again):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row = append(given.results, measure(conversion, given.data, Path(scratch) / "out"))
        print(row, file=sys.stderr, flush=True)
    print(summary(rows(given.results)))


if __name__ == "__main__":
    main()
