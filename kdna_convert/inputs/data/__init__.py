"""DATA: images, sounds or clips as inputs of a net, from a folder, a .tar, a timm dataset or tensors.

sources.py reads single images, timm_datasets.py those of timm's datasets, decoding.py decodes them, cropping.py cuts
parts at full size. streams.py reads shards (shards.py, tar_shards.py, parquet_shards.py); lanes.py has the order in
which they are trained on, stream_views.py the training images. waves.py reads sounds,
clips.py clips. images.py selects, splits and batches them. pairs.py has images with masks, boxes (boxes.py) or targets
(degrading.py). classes.py numbers the classes, memory.py takes tensors and datasets, bundled.py has the digits that
come with kdna, views.py augments training images, mixing.py mixes images in pairs, packing.py makes one tensor of
several inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import DataError
from ...core.specs import DataConfig, Shape, is_wave
from .bundled import PREFIX, open_bundled
from .classes import check_classes, read_class_map
from .clips import ClipSource, takes_clips
from .decoding import Decoder
from .images import Batch, Images, Inputs, Reading, concat_labels, split
from .memory import Batches, DatasetSource, TensorSource, hold, iterate
from .mixing import Mixed, mixer
from .packing import Packing, accept_packed, takes_packed
from .pairs import is_pair, open_pairs
from .sources import FolderSource
from .stream_views import shared_loader, train_loader
from .timm_datasets import LIBRARIES, open_named
from .views import TrainBatch, Views
from .waves import WaveSource, holds_waves

__all__ = [
    "Batch",
    "Data",
    "Images",
    "Inputs",
    "Mixed",
    "Packing",
    "Reading",
    "TrainBatch",
    "Views",
    "accept_packed",
    "as_images",
    "batches",
    "check_classes",
    "concat_labels",
    "input_shape",
    "mixer",
    "open_images",
    "read_class_map",
    "shared_loader",
    "split",
    "takes_packed",
    "train_loader",
]

# DATA in the Python API: opened images, inputs (N, ...), a torch Dataset of single inputs, or an iterable of batches. A
# batch is a tensor or (inputs, labels). A net with several inputs takes a tuple of them, ((x, y), None), or a dict.
Data = Images | Tensor | Dataset[Any] | Batches | Mapping[str, Tensor]


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
    """Open a data set as inputs of a net.

    Args:
        path: A folder of class folders or of unlabeled images or .wav files, a .tar of images, IMAGES::LABELS
            (pairs.py), the bundled `kdna:digits/train` or `kdna:digits/test`, or a timm dataset:
            `hfds/owner/name:train`, `wds/folder:train`, `torch/cifar10`. `:train|5000` gives the number of images of a
            split that does not say it; with `:train|strict` a stream's missing shard is an error.
        config: The net's input.
        class_map: A file that numbers the class names (see `read_class_map`).
        limit: How many images to draw at random; None takes all.
        seed: Of the draw.
        split: timm's split, "validation" where neither this nor `path` gives one. In a folder, a subfolder.
        root: The directory of a timm dataset.

    Raises:
        DataError: KD401 (no images), KD402 (the class map has other classes), KD404 (the class map cannot be read),
            KD406 (no image can have this size), KD412 (labels that do not fit their images), KD420 (a missing shard).
    """
    classes = None if class_map is None else read_class_map(class_map)
    if is_pair(str(path)):
        pairs = open_pairs(str(path), config, classes)
        return Images(pairs, range(len(pairs)), {}).draw(limit, seed)
    if str(path).startswith(PREFIX) and not Path(path).exists():
        held = open_bundled(f"{path}/{split}" if split else str(path), config, classes)
        return Images(held, range(len(held)), {}).draw(limit, seed)
    folder = Path(path, split) if split else Path(path)
    if takes_clips(config) and folder.is_dir():
        clips = ClipSource(folder, config, classes)
        return Images(clips, range(len(clips)), clips.skipped).draw(limit, seed)
    if holds_waves(folder):
        waves = WaveSource(folder, config, classes)
        return Images(waves, range(len(waves)), waves.skipped).draw(limit, seed)
    if config.sample_rate is not None and is_wave(config.input_size):
        raise DataError("KD401", f"{path}: no .wav files found; the net takes sounds: pass a folder of .wav files")
    decode = Decoder(config)
    scheme, slash, _ = str(path).partition("/")
    if slash and scheme.lower() in LIBRARIES and not Path(path).exists():
        named, lost = open_named(str(path), root, split, decode, classes, limit)
        return Images(named, range(len(named)), lost).draw(limit, seed)
    files = FolderSource(folder, decode, classes)
    skipped = dict.fromkeys(files.unmapped, "its folder is not in the class map")
    return Images(files, range(len(files)), skipped).draw(limit, seed)


def as_images(data: Data, limit: int | None = None, seed: int = 0) -> Images:
    """Any DATA as Images, which can be split and read several times. Batches are kept in memory, up to `limit` inputs.

    Raises DataError KD401 for batches that are empty or hold no floating-point tensors.
    """
    if isinstance(data, Images):
        return data.draw(limit, seed)
    if isinstance(data, Tensor):
        source: TensorSource | DatasetSource = TensorSource(data, None)
    elif isinstance(data, Mapping):
        source = hold([data], limit)
    elif isinstance(data, Iterable):
        source = hold(data, limit)
    else:
        source = DatasetSource(data)
    return Images(source, range(len(source)), {}).draw(limit, seed)


def input_shape(images: Images) -> Shape | None:
    """The shape of one input that DATA in memory gives; None for image files, which are read in the net's own size."""
    source = images.source
    if not isinstance(source, TensorSource | DatasetSource) or not len(images):
        return None
    return tuple(source.sample(images.positions[0])[0].shape)


def batches(data: Data, batch_size: int = 64, *, workers: int = 0) -> Iterable[Batch]:
    """Read DATA in batches: float32 inputs (B, ...) with int64 labels (B,) or None, in a fixed order.

    An iterable of batches keeps its own batches. Damaged images are skipped and listed in `images.skipped`.

    Args:
        data: DATA.
        batch_size: Images in a batch.
        workers: Processes that decode images; 0 decodes in this process.

    Raises:
        DataError: KD401, during iteration, when nothing can be read.
    """
    if isinstance(data, Iterable) and not isinstance(data, Tensor | Mapping):
        return iterate(data)
    return Reading(as_images(data), batch_size, workers)
