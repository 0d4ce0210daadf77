"""Small shards, as webdataset and Hugging Face datasets write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image

# Shards of different lengths, 60 images in all.
UNEVEN = (13, 7, 20, 11, 9)


def noise(seed: int) -> bytes:
    """An image of noise that the tiny net takes."""
    file = io.BytesIO()
    pixels = torch.randint(0, 255, (16, 16, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def webdataset(folder: Path, images: Sequence[bytes], lengths: Sequence[int] | None = None, classes: int = 3) -> str:
    """Shards with the file that says what is in them, by default three of one length. Returns DATA."""
    folder.mkdir()
    lengths = lengths or [len(images) // 3] * 3
    names = [f"some-{number:03}.tar" for number in range(len(lengths))]
    for name, (begin, end) in zip(names, pairwise(accumulate(lengths, initial=0)), strict=True):
        with tarfile.open(folder / name, "w") as tar:
            for place in range(begin, end):
                for suffix, content in (("png", images[place]), ("cls", str(place % classes).encode())):
                    member = tarfile.TarInfo(f"{place:06}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    train = {"name": "train", "filenames": names, "shard_lengths": list(lengths), "num_samples": sum(lengths)}
    (folder / "_info.json").write_text(json.dumps({"splits": {"train": train}}))
    return f"wds/{folder}:train"


def huggingface(folder: Path, images: Sequence[bytes], kind: str) -> str:
    """Two parquet files, as a repository on the hub has them. Returns DATA."""
    import datasets

    (folder / "data").mkdir(parents=True)
    rows: dict[str, list[Any]] = {
        "image": [{"bytes": image, "path": None} for image in images],
        "label": [place % 3 for place in range(len(images))],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    whole = datasets.Dataset.from_dict(rows, features=features)
    for number in range(2):
        part = whole.shard(2, number, contiguous=True)
        part.to_parquet(folder / "data" / f"train-{number:05}-of-00002.parquet")
    return f"{kind}/{folder}:train"


def uncounted(data: str) -> str:
    """DATA of the shards of `webdataset` without the file that says how long they are."""
    folder = Path(data.removeprefix("wds/").removesuffix(":train"))
    lengths = json.loads((folder / "_info.json").read_text())["splits"]["train"]["shard_lengths"]
    (folder / "_info.json").unlink()
    return f"wds/{folder}:some-{{000..{len(lengths) - 1:03}}}.tar|{sum(lengths)}"


def tear(path: Path, bytes_kept: int) -> None:
    """Leave the first bytes of a shard."""
    path.write_bytes(path.read_bytes()[:bytes_kept])
