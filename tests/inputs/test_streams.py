"""Laws of datasets by name, on small shards as webdataset and Hugging Face datasets write them."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import NET, convert, kdna
from support.pictures import CONFIG, code_of, labels, picture, values
from support.processes import torchrun
from support.shards import UNEVEN, huggingface, noise, tear, uncounted, webdataset

from kdna_convert.core.errors import DataError
from kdna_convert.inputs.data import Reading, open_images, split

COUNT = 12
# webdataset leaves it to the garbage collector to close a shard that was not read to its end.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Close the files that a test leaves open, so that no other test warns of them."""
    yield
    gc.collect()


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
    unsaid = huggingface(tmp_path / "repository", [picture(0), picture(1)], "hfids")
    for name in (some, unsaid):
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
    (tmp_path / "shards" / "some-001.tar").unlink()
    tuned = kdna(
        "finetune", tmp_path / "out", "--data", data, "--steps", 2, "--batch-size", 16, "-o", tmp_path / "tuned"
    )
    assert tuned.exit_code == 0, tuned.output
    assert json.loads((tmp_path / "tuned" / "report.json").read_text())["finetune"]["steps"] == 2
    skipped = json.loads((tmp_path / "tuned" / "report.json").read_text())["finetune"]["skipped"]
    assert all(line.startswith("some-001.tar: there is no such file (") for line in skipped)
    assert len(skipped) == 1
    assert "1 image or shard was skipped" in tuned.stderr


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Twelve images, painted 0 to 11, in three shards."""
    return webdataset(tmp_path / "shards", [picture(value) for value in range(COUNT)])


def test_a_missing_shard_is_skipped_and_named_once(shards: str, tmp_path: Path) -> None:
    (tmp_path / "shards" / "some-001.tar").unlink()
    for name in (str, uncounted):
        images = open_images(name(shards), CONFIG)
        assert values(images) == [0, 1, 2, 3, 8, 9, 10, 11]
        assert [line.partition(" (")[0] for line in images.skipped] == ["some-001.tar: there is no such file"]


@pytest.mark.parametrize("kept", [512 * 9, 512 * 8, 512 * 8 + 100])
def test_a_torn_shard_gives_the_images_before_the_tear(shards: str, tmp_path: Path, kept: int) -> None:
    """A sample is a header and a block for each of its two files; the tear is in, or after, the third one."""
    tear(tmp_path / "shards" / "some-001.tar", kept)
    for name in (str, uncounted):
        images = open_images(name(shards), CONFIG)
        assert values(images) == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
        assert [line.partition(":")[0] for line in images.skipped] == ["some-001.tar"]


def test_a_missing_parquet_file_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = huggingface(tmp_path / "repository", [picture(value) for value in range(COUNT)], "hfids")
    images = open_images(f"{data}|{COUNT}", CONFIG)
    (tmp_path / "repository" / "data" / "train-00000-of-00002.parquet").unlink()
    assert values(images) == [*range(6, 12)]
    assert len(images.skipped) == 1
    assert images.skipped[0].startswith("train-00000-of-00002.parquet: FileNotFoundError")
    assert images.skipped[0].endswith("(6 images)")


def test_a_strict_stream_stops_at_a_shard_that_is_not_there(shards: str, tmp_path: Path) -> None:
    (tmp_path / "shards" / "some-001.tar").unlink()
    with pytest.raises(DataError, match=r"the shard some-001.tar cannot be read: there is no such file") as error:
        values(open_images(f"{shards}|strict", CONFIG))
    assert code_of(error) == "KD420"
    done = kdna("eval", NET, "--data", f"{shards}|12|strict")
    assert done.exit_code == 2
    assert "KD420" in done.stderr


def test_an_unreadable_image_of_a_shard_is_skipped_by_name(tmp_path: Path) -> None:
    data = webdataset(tmp_path / "shards", [b"no image" if value == 5 else picture(value) for value in range(COUNT)])
    images = open_images(data, CONFIG)
    assert values(images) == [value for value in range(COUNT) if value != 5]
    assert images.skipped == ["some-001.tar: image 1: not an image"]


def test_shares_of_a_stream_are_its_batches_and_open_their_own_shards_only(tmp_path: Path) -> None:
    data = webdataset(tmp_path / "shards", [picture(value) for value in range(sum(UNEVEN))], UNEVEN)
    whole = [(number, inputs.tolist()) for number, (inputs, _) in Reading(open_images(data, CONFIG), 8).dealt(0, 1)]
    for step in (2, 4, 100):
        shares, opened = [], []
        for first in range(step):
            images = open_images(data, CONFIG)
            source = Counting(images.source.shards)
            images.source.shards = source
            shares += [(number, inputs.tolist()) for number, (inputs, _) in Reading(images, 8).dealt(first, step)]
            opened.append(source.opened)
        assert shares == whole
        assert all(len(set(shards)) == len(shards) for shards in opened)
        assert sum(map(len, opened)) <= len(UNEVEN) + step - 1


class Counting:
    """Shards that note which were opened."""

    def __init__(self, shards: Any) -> None:
        self.shards, self.names, self.opened = shards, shards.names, []

    def open(self, shard: int) -> Any:
        self.opened.append(shard)
        return self.shards.open(shard)


def test_parts_of_a_stream_come_from_the_beginnings_of_many_shards(tmp_path: Path) -> None:
    images = open_images(webdataset(tmp_path / "shards", [picture(0)] * 240, [80, 80, 80]), CONFIG)
    first, second, rest = split(images, [48, 24, 168], seed=3)
    assert sorted(place % 80 for place in first.positions) == sorted([*range(16)] * 3)
    assert {place % 80 for place in second.positions} <= {*range(16, 32)}
    assert sorted(first.positions + second.positions + rest.positions) == list(range(240))
    assert len({tuple(split(images, [48], seed=seed)[0].positions) for seed in range(9)}) > 1
