"""What a stream of shards costs: the bytes that each process reads, the memory and the speed of a fine-tune from it.

    python benchmarks/streams.py [--gib 3] [--shards 64] [--again]

It writes shards of JPEG images of noise that take so many GiB decoded, 128 x 128 pixels each. Rows that
benchmarks/results/streams.jsonl has are not measured again:

* "read": a pass as `kdna eval` makes it, by one, two and four gloo processes, and what each read (/proc/self/io);
* "train": half an epoch of `kdna finetune` by one process, and a quarter by two: the peak memory of a process, and
  images a second of the steps. The net is tiny, so that reading and decoding decide.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from commands import KDNA, Row, append, kdna, machine, rows, run, table
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "streams.jsonl"
BEFORE = "7378b43"  # the commit before decision 0042
NET = Path(__file__).parent / "plain_net.py"
SIDE, BATCH = 128, 128
DISTINCT = 512  # images; the shards repeat them
PASSES, TRAININGS = (1, 2, 4), (1, 2)


def write_shards(folder: Path, images: int, shards: int) -> str:
    """Shards as webdataset writes them. Returns DATA."""
    folder.mkdir(parents=True)
    random, encoded = np.random.default_rng(0), []
    for _ in range(min(DISTINCT, images)):
        file = io.BytesIO()
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        encoded.append(file.getvalue())
    lengths = [images // shards + (number < images % shards) for number in range(shards)]
    names = [f"noise-{number:05}.tar" for number in range(shards)]
    place = 0
    for name, length in zip(names, lengths, strict=True):
        with tarfile.open(folder / name, "w") as tar:
            for _ in range(length):
                for suffix, content in (("jpg", encoded[place % len(encoded)]), ("cls", str(place % 10).encode())):
                    member = tarfile.TarInfo(f"{place:08}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                place += 1
    split = {"name": "train", "filenames": names, "shard_lengths": lengths, "num_samples": images}
    (folder / "_info.json").write_text(json.dumps({"splits": {"train": split}}))
    return f"wds/{folder}:train"


def launched(processes: int, *command: str) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(launch if processes > 1 else []), *command]


def measure_pass(data: str, processes: int, scratch: Path) -> Row:
    """A row of "read"."""
    out = scratch / f"pass-{processes}"
    out.mkdir()
    _, cost = run(launched(processes, __file__, "--one-pass", data, str(out)))
    each = [json.loads(path.read_text()) for path in sorted(out.iterdir())]
    return {
        "read_mb": [round(own["bytes"] / 1e6, 1) for own in each],
        "images_read": [own["images"] for own in each],
        "pass_seconds": round(max(own["seconds"] for own in each), 1),
        **cost.row,
    }


def one_pass(data: str, out: Path) -> None:
    """A process of a pass: read and decode this process's batches, and write down what that took."""
    import time

    import torch

    from kdna_convert.core.processes import number, process_group, share
    from kdna_convert.core.specs import DataConfig
    from kdna_convert.inputs.data import Reading, open_images

    with process_group(torch.device("cpu")):
        images = open_images(data, DataConfig((3, SIDE, SIDE), crop_pct=1.0))
        before, began = _bytes_read(), time.perf_counter()
        seen = sum(len(inputs) for _, (inputs, _) in share(Reading(images, 100)))
        found = {"bytes": _bytes_read() - before, "images": seen, "seconds": time.perf_counter() - began}
        (out / f"{number()}.json").write_text(json.dumps(found))


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def measure_training(folder: Path, data: str, processes: int, epochs: float, scratch: Path) -> Row:
    """A row of "train"."""
    command = ["finetune", folder, "--data", data, "--device", "cpu", "--lr", "1e-4", "--batch-size", str(BATCH)]
    command += ["--epochs", str(epochs), "--save-every", "10000", "-o", scratch / f"tuned-{processes}"]
    words = [*KDNA[1:], *map(str, command), "--json", "--quiet"]
    out, cost = run(launched(processes, *words))
    report = json.loads(out)["finetune"]
    speed = {"steps": report["steps"], "images_per_second": round(report["images_per_second"], 1)}
    return {"epochs": epochs, **speed, **cost.row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=3)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--again", action="store_true", help="forget the rows of the file")
    parser.add_argument("--only", default="", help="read or train")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one-pass", nargs=2, metavar=("DATA", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_pass:
        one_pass(given.one_pass[0], Path(given.one_pass[1]))
        return
    if given.again:
        given.results.unlink(missing_ok=True)
    images = round(given.gib * 2**30 / (3 * SIDE * SIDE))
    sizes = {"decoded_gib": given.gib, "images": images, "shards": given.shards}
    known = {(row["what"], row["processes"], row["decoded_gib"]) for row in rows(given.results)}
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        data = write_shards(scratch / "shards", images, given.shards)
        tasks = [("read", processes) for processes in PASSES] + [("train", processes) for processes in TRAININGS]
        missing = [task for task in tasks if task[0].startswith(given.only) and (*task, given.gib) not in known]
        if any(what == "train" for what, _ in missing):
            model = f"{NET}:plain_net(width=8, depth=2, side={SIDE}, stride=8)"
            kdna("convert", model, "--data", data, "--target-params", "60%", "-o", scratch / "net")
        for what, processes in missing:
            if what == "read":
                row = measure_pass(data, processes, scratch)
            else:
                row = measure_training(scratch / "net", data, processes, 0.5 / processes, scratch)
            found = {"what": what, "processes": processes, **sizes, **row, **machine()}
            print(append(given.results, found), file=sys.stderr, flush=True)
    print(summary([row for row in rows(given.results) if row["decoded_gib"] == given.gib]))


def summary(found: list[Row]) -> str:
    """A line for each row. Rows of before BEFORE, when every process read the whole stream, are named so."""
    lines = []
    for row in found:
        what = f"{row['what']}, before 0042" if row["commit"] == BEFORE else row["what"]
        read = ", ".join(f"{size:.0f}" for size in row.get("read_mb", []))
        speed = [f"{row[key]:.0f}" if key in row else "" for key in ("pass_seconds", "images_per_second")]
        lines.append([what, row["processes"], read, *speed, f"{row['peak_gb']:.2f}"])
    return table(("", "processes", "MB read by each", "seconds of the pass", "images/s", "peak GB"), lines)


if __name__ == "__main__":
    main()
