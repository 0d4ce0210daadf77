"""Datasets by timm's names, `scheme/name:split|count`: `torch/cifar10`, `hfds/owner/name`, and the streams."""

from __future__ import annotations

import importlib.util
from numbers import Integral
from typing import Any

from timm.data.dataset_factory import create_dataset

from ...core.errors import DataError
from .decoding import Decoder, one_line
from .shards import OneShard, Shards, counted
from .sources import Classes, Sample
from .streams import Stream

# timm's dataset schemes and the package that each needs. Checked here, since timm reports a missing one on stdout.
LIBRARIES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "wds": "webdataset",
}
STREAMS = ("hfids", "tfds", "wds")
UNCOUNTED = "does not say how many images it has; add the number, as in wds/FOLDER:train|5000, or set a limit"
STRICT = "strict"


class NamedSource:
    """A map-style dataset with timm's name: `torch/cifar10`, `hfds/owner/name`."""

    def __init__(self, dataset: Any, decode: Decoder, class_map: Classes | None) -> None:
        self.records = getattr(dataset, "reader", dataset)  # timm's reader returns files, torchvision's dataset images
        self.decode = decode
        self.finish = decode.finish
        self.mapped = class_map is not None
        own = getattr(self.records, "class_to_idx", None) or _numbered(getattr(self.records, "classes", ()))
        self.classes: Classes = own if class_map is None else class_map
        renumber = class_map is not None and self.records is dataset  # timm's reader applies the map itself
        self._labels = {index: self.classes.get(name) for name, index in own.items()} if renumber else None
        self.labeled = self._label(self.records[0][1]) is not None

    def __len__(self) -> int:
        return len(self.records)

    def name(self, index: int) -> str:
        return f"image {index}"

    def sample(self, index: int) -> Sample:
        image, target = self.records[index][:2]
        return self.decode(image), self._label(target)

    def _label(self, target: Any) -> int | None:
        label = target if self._labels is None else self._labels.get(target)
        return int(label) if isinstance(label, Integral) and int(label) >= 0 else None


def open_named(
    name: str, root: str | None, split: str | None, decode: Decoder, class_map: Classes | None, limit: int | None
) -> tuple[NamedSource | Stream, dict[str, str]]:
    """Open a dataset by timm's name, `scheme/name:split|count|strict`, and list the shards that could not be counted.

    Of a stream that does not say its length, at most `limit` images are taken. All processes must call this.

    Raises DataError KD401 with timm's own reason, or with the package that is missing, and KD420 for a lost shard of a
    strict stream.
    """
    name, named_split, count, strict = _parts(name)
    split = split or named_split
    scheme, _, rest = name.partition("/")
    package = LIBRARIES[scheme.lower()]
    if importlib.util.find_spec(package) is None:
        raise DataError("KD401", f"{name}: the package {package} is missing; pip install {package.replace('_', '-')}")
    if root is None and scheme.lower() in ("wds", "torch"):
        root = rest if scheme.lower() == "wds" else "."
    mapping: Any = None if class_map is None or scheme.lower() == "torch" else dict(class_map)
    try:
        options: dict[str, Any] = {} if count is None else {"num_samples": count}
        if scheme.lower() == "hfids" and count is None and limit is not None:
            options = {"num_samples": limit}
        dataset = create_dataset(name, root=root, split=split or "validation", class_map=mapping, **options)
        if scheme.lower() not in STREAMS:
            return NamedSource(dataset, decode, class_map), {}
        reader = getattr(dataset, "reader", None)
        if reader is not None:  # otherwise its length is that of a process's part
            vars(reader).update(dist_rank=0, dist_num_replicas=1, global_num_workers=1)
        most = count or len(dataset) or limit or 0
        shards = _shards(scheme.lower(), dataset, name, class_map, most)
    except DataError:
        raise
    except Exception as error:
        reason = f"{name} {UNCOUNTED}" if "num_samples" in str(error) else f"{name}: {one_line(error)}"
        raise DataError("KD401", reason) from error
    if not most:
        raise DataError("KD401", f"{name} {UNCOUNTED}")
    return _stream(shards, dataset, decode, class_map, strict=strict, most=most)


def _stream(
    shards: Shards, dataset: Any, decode: Decoder, class_map: Classes | None, *, strict: bool, most: int
) -> tuple[Stream, dict[str, str]]:
    lengths, lost = (shards.lengths, {}) if shards.lengths is not None else counted(shards, most, strict)
    own: Classes = getattr(getattr(dataset, "reader", None), "class_to_idx", {})
    classes = own if class_map is None else class_map
    mapped = class_map is not None
    return Stream(shards, lengths, decode, classes=classes, mapped=mapped, strict=strict, most=most), lost


def _shards(scheme: str, dataset: Any, name: str, class_map: Classes | None, most: int) -> Shards:
    """The shards of a stream; one, where timm does not show them."""
    reader = getattr(dataset, "reader", None)
    if scheme == "wds" and hasattr(reader, "split_info"):
        from .tar_shards import TarShards

        if class_map is not None:
            raise DataError("KD402", f"{name} numbers its classes and does not name them: leave out the class map")
        return TarShards(reader)
    if scheme == "hfids" and hasattr(reader, "builder"):
        from .parquet_shards import ParquetShards

        return ParquetShards(reader, class_map)
    return OneShard(dataset, name, most)


def _parts(name: str) -> tuple[str, str | None, int | None, bool]:
    """Split `scheme/name:split|count|strict`. A colon before a slash belongs to an address."""
    rest, colon, split = name.rpartition(":")
    if not colon or "/" in split:
        return name, None, None, False
    split, *marks = split.split("|")
    counts = [mark for mark in marks if mark != STRICT]
    if len(counts) > 1 or not all(map(str.isdecimal, counts)):
        wrong = next((mark for mark in counts if not mark.isdecimal()), counts[-1])
        way_out = "write it like :train|5000, or :train|5000|strict"
        raise DataError("KD401", f"{name}: after the | comes the number of images, not {wrong!r}; {way_out}")
    return rest, split or None, int(counts[0]) if counts else None, STRICT in marks


def _numbered(names: Any) -> dict[str, int]:
    return {str(name): index for index, name in enumerate(names)}
