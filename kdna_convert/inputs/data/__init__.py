"""DATA: images as inputs of a net. A folder, a .tar, a timm dataset or tensors; drawn, split and read in batches.

sources.py reads, images.py selects and batches, classes.py numbers the classes, memory.py takes what is not on disk,
bundled.py has the digits that come with kdna, views.py draws what is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import DataError
from ...core.specs import DataConfig
from .bundled import PREFIX, open_bundled
from .classes import check_classes, read_class_map
from .images import Batch, Images, Inputs, Reading, joined, split
from .memory import Batches, Held, Wrapped, hold, iterate
from .mixing import Mixed, mixer
from .sources import LIBRARIES, UNCOUNTED, Decoder, Files, open_named
from .views import TrainBatch, Views, train_loader

__all__ = [
    "Batch",
    "Data",
    "Images",
    "Inputs",
    "Mixed",
    "Reading",
    "TrainBatch",
    "Views",
    "as_images",
    "batches",
    "check_classes",
    "joined",
    "mixer",
    "open_images",
    "read_class_map",
    "split",
    "train_loader",
]

# What the Python API takes as DATA: opened images, inputs (N, ...), a torch Dataset of single inputs, or batches.
Data = Images | Tensor | Dataset[Any] | Batches


def open_images(
    path: str | Path,
    config: DataConfig,
    *,
    class_map: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    split: str | None = None,
    root: str | None = None,
) -> Images:
    """The images at `path`, each as `config` says the net takes it; `limit` draws a random subset by `seed`.

    `path` is a folder (of class folders, or without labels), a .tar, the bundled `kdna:digits/train` or
    `kdna:digits/test`, or a timm dataset (`hfds/owner/name:train`, `wds/folder:train`, `torch/cifar10`) with timm's
    `split` (validation), given here or after a colon, and `root`.
    `:train|5000` says how many images the split has where it does not say so. In a folder, `split` is a subfolder.
    Raises DataError KD401 (no images), KD402 (a class map of other classes), KD404 (no class map), KD406 (no image can
    have this size).
    """
    classes = None if class_map is None else read_class_map(class_map)
    if str(path).startswith(PREFIX) and not Path(path).exists():
        held = open_bundled(f"{path}/{split}" if split else str(path), config, classes)
        return Images(held, range(len(held)), {}).draw(limit, seed)
    decode = Decoder(config)
    scheme, slash, _ = str(path).partition("/")
    if slash and scheme.lower() in LIBRARIES and not Path(path).exists():
        named = open_named(str(path), root, split, decode, classes)
        if not len(named) and limit is None:
            raise DataError("KD401", f"{path} {UNCOUNTED}")
        return Images(named, range(len(named) or limit or 0), {}).draw(limit, seed)
    files = Files(Path(path, split) if split else Path(path), decode, classes)
    skipped = dict.fromkeys(files.unmapped, "its folder is not in the class map")
    return Images(files, range(len(files)), skipped).draw(limit, seed)


def as_images(data: Data, limit: int | None = None, seed: int = 0) -> Images:
    """Any DATA as Images, to be split and read more than once. Batches are kept in memory, up to `limit` inputs."""
    if isinstance(data, Images):
        return data.draw(limit, seed)
    if isinstance(data, Tensor):
        source: Held | Wrapped = Held(data, None)
    elif isinstance(data, Iterable):
        source = hold(data, limit)
    else:
        source = Wrapped(data)
    return Images(source, range(len(source)), {}).draw(limit, seed)


def batches(data: Data, batch_size: int = 64, *, workers: int = 0) -> Iterable[Batch]:
    """float32 inputs (B, ...) with int64 labels (B,) or None, in a fixed order; one's own batches pass as they are.

    Damaged images are skipped and listed in `images.skipped`. `workers` processes decode, 0 of them in this one. Going
    through them raises DataError KD401 when nothing can be read.
    """
    if isinstance(data, Iterable) and not isinstance(data, Tensor):
        return iterate(data)
    return Reading(as_images(data), batch_size, workers)
