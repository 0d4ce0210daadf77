"""The shards of a streamed Hugging Face dataset: its files, each of them `IterableDataset.shard(num_shards, index)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from .decoding import UnreadableImageError, one_line
from .shards import Cursor, IteratedCursor, Record, label_of

# Rows that are made Python objects at once.
ROWS = 16


class ParquetShards:
    """Shards by timm's reader of streamed datasets. Pictures are not decoded."""

    lengths: Sequence[int] | None = None

    def __init__(self, reader: Any, class_map: Mapping[str, int] | None) -> None:
        self.dataset = reader.builder.as_streaming_dataset(split=reader.split).decode(False)
        files = list((reader.builder.config.data_files or {}).get(reader.split, ()))
        total = self.dataset.num_shards
        self._files = list(map(str, files)) if len(files) == total else []
        self.names: Sequence[str] = [PurePosixPath(name).name for name in self._files] or [
            f"shard {number}" for number in range(total)
        ]
        self._image, self._target = reader.input_key, reader.target_key
        names = {index: name for name, index in getattr(reader, "class_to_idx", {}).items()}
        own = getattr(self.dataset.features.get(self._target), "names", None) if self.dataset.features else None
        names = dict(enumerate(own)) if own else names
        self._labels = None if class_map is None else {index: class_map.get(name) for index, name in names.items()}

    def count(self, shard: int) -> tuple[int, str | None]:
        """By the footer of a parquet file; other files are read."""
        try:
            if self._files and self._files[shard].endswith(".parquet"):
                import fsspec
                from pyarrow.parquet import ParquetFile

                with fsspec.open(self._files[shard], "rb") as file:
                    return int(ParquetFile(file).metadata.num_rows), None
            return sum(1 for _ in self.records(shard, 0)), None
        except Exception as error:  # noqa: BLE001 - a file system may raise anything
            return 0, one_line(error)

    def open(self, shard: int) -> Cursor:
        return _LateCursor(self, shard)

    def records(self, shard: int, first: int) -> Iterator[Record | UnreadableImageError]:
        """The samples of a shard from number `first`."""
        rows = self.dataset.shard(num_shards=len(self.names), index=shard)
        rows = rows.skip(first) if first else rows
        # In a worker of a DataLoader, iter(rows) would divide the rows among the workers once more; this does not.
        for batch in rows.iter(batch_size=ROWS):
            targets = batch.get(self._target, [None] * len(batch[self._image]))
            for picture, target in zip(batch[self._image], targets, strict=True):
                yield _encoded(picture), self._label(target)

    def _label(self, target: Any) -> int | None:
        label = label_of(target)
        return label if self._labels is None or label is None else self._labels.get(label)


class _LateCursor:
    """A cursor that opens its shard at the first sample that is asked for, so that earlier ones are passed over."""

    def __init__(self, shards: ParquetShards, shard: int) -> None:
        self.shards, self.shard = shards, shard
        self.cursor: IteratedCursor | None = None

    def read(self, place: int) -> Record:
        if self.cursor is None:
            records = self.shards.records(self.shard, place)
            self.cursor = IteratedCursor(records, self.shards.names[self.shard], place)
        return self.cursor.read(place)

    def close(self) -> None:
        if self.cursor is not None:
            self.cursor.close()


def _encoded(picture: Any) -> Any:
    """The bytes of a picture that datasets did not decode; a file's path where it holds none."""
    if isinstance(picture, Mapping):
        return picture["bytes"] if picture.get("bytes") is not None else picture.get("path")
    return picture
