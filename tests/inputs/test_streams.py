"""Laws of datasets by name, on small shards as webdataset and Hugging Face datasets write them."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.command import NET, convert, kdna
from support.pictures import CONFIG, code_of, labels, picture, values
from support.processes import torchrun

from kdna_convert.core.errors import DataError
from kdna_convert.inputs.data import open_images

COUNT = 12
# webdataset leaves it to the garbage collector to close a shard that was not read to its end.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Close the files that a test leaves open, so that no other test warns of them."""
    yield
    gc.collect()


def noise(seed: int) -> bytes:
    """An image of noise that the tiny net takes."""
    file = io.BytesIO()
    pixels = torch.randint(0, 255, (16, 16, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def webdataset(folder: Path, images: list[bytes], shards: int = 3) -> str:
    """Shards with the file that says what is in them. Returns DATA."""
    folder.mkdir()
    names, each = [f"some-{number:03}.tar" for number in range(shards)], len(images) // shards
    for number, name in enumerate(names):
        with tarfile.open(folder / name, "w") as tar:
            for place in range(number * each, (number + 1) * each):
                for suffix, content in (("png", images[place]), ("cls", str(place % 3).encode())):
                    member = tarfile.TarInfo(f"{place:06}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    train = {"name": "train", "filenames": names, "shard_lengths": [each] * shards, "num_samples": len(images)}
    (folder / "_info.json").write_text(json.dumps({"splits": {"train": train}}))
    return f"wds/{folder}:train"


def huggingface(folder: Path, images: list[bytes], kind: str) -> str:
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


@pytest.fixture(params=["wds", "hfds", "hfids"])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Twelve images, painted 0 to 11 in their order, of three classes in turn."""
    images = [picture(value) for value in range(COUNT)]
    if request.param == "wds":
        return webdataset(tmp_path / "shards", images)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    stream = huggingface(tmp_path / "repository", images, request.param)
    return stream if request.param == "hfds" else f"{stream}|{COUNT}"  # a stream of theirs may not say how long it is


def test_a_split_after_a_colon_is_read_with_its_labels(data: str) -> None:
    images = open_images(data, CONFIG)
    assert (len(images), values(images), labels(images)) == (COUNT, list(range(COUNT)), [0, 1, 2] * 4)
    assert dict(images.classes) == ({"a": 0, "b": 1, "c": 2} if data.startswith("hfds") else {})


def test_a_number_after_the_split_limits_the_images(data: str) -> None:
    named = data.partition("|")[0]
    if not data.startswith("hfds"):  # whose length is known
        assert values(open_images(f"{named}|5", CONFIG)) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="not 'five'") as error:
        open_images(f"{named}|five", CONFIG)
    assert code_of(error) == "KD401"


def test_a_missing_split_is_named(data: str) -> None:
    with pytest.raises(DataError, match="KD401") as error:
        values(open_images(data.replace(":train", ":absent"), CONFIG))
    assert code_of(error) == "KD401"


def test_a_stream_of_unknown_length_needs_a_number_after_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    webdataset(tmp_path / "shards", [picture(value) for value in range(COUNT)])
    (tmp_path / "shards" / "_info.json").unlink()
    some = f"wds/{tmp_path / 'shards'}:some-{{001..002}}.tar"
    assert values(open_images(f"{some}|8", CONFIG)) == [4, 5, 6, 7, 8, 9, 10, 11]
    uncounted = huggingface(tmp_path / "repository", [picture(0), picture(1)], "hfids")
    for name in (some, uncounted):
        with pytest.raises(DataError, match=r"add the number, as in wds/FOLDER:train\|5000") as error:
            open_images(name, CONFIG)
        assert code_of(error) == "KD401"


def test_two_processes_evaluate_a_stream_like_one(tmp_path: Path) -> None:
    data = webdataset(tmp_path / "shards", [noise(seed) for seed in range(60)])
    one = kdna("eval", NET, "--data", data, "--json", "-q")
    two = torchrun("kdna_convert", "eval", NET, "--data", data, "--json", "-q")
    assert two.returncode == 0, two.stderr
    expected, printed = json.loads(one.stdout), json.loads(two.stdout)
    assert expected["images"] == printed["images"] == 60
    assert printed["top1"] == expected["top1"]


def test_a_stream_is_converted_and_fine_tuned_with(tmp_path: Path) -> None:
    data = webdataset(tmp_path / "shards", [noise(seed) for seed in range(60)])
    done = kdna(*convert(data), "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    tuned = kdna(
        "finetune", tmp_path / "out", "--data", data, "--steps", 2, "--batch-size", 16, "-o", tmp_path / "tuned"
    )
    assert tuned.exit_code == 0, tuned.output
    assert json.loads((tmp_path / "tuned" / "report.json").read_text())["finetune"]["steps"] == 2
