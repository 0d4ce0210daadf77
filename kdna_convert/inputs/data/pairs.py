"""Images with labels that are no class: IMAGES::LABELS.

    photos::masks            a mask for each image, of the same name and size: pixels are classes, 255 is ignored
    photos::instances.json   COCO's json of boxes
    photos::Annotations      VOC's xml of boxes; --class-map numbers the classes
    low::high                a target for each image, of the same name, as large or a whole number of times larger
    photos::x4               the image is the target, and the input is made from it: x4, noise25, jpeg40 (degrading.py)

A label has its image's path without the suffix, or its name where that is unique. Pictures of one channel are masks for
a net that takes color images; for others `mask:FOLDER` or `target:FOLDER` says what they are. Masks and boxes are
resized and cropped with their image. Targets are not resized: of both, a part at full size is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from ...core.errors import DataError
from ...core.specs import DataConfig
from .boxes import ImageBoxes, coco_boxes, packed_boxes, voc_boxes
from .cropping import FULL_SIZE, at_least, window
from .decoding import Decoder, UnreadableImageError, picture
from .degrading import Degradation, degradation, is_degradation
from .sources import Classes, FolderSource, Sample

MARK = "::"
# The modes of pictures of one channel.
_SINGLE = ("P", "L", "1", "I", "I;16")
Sizes = Mapping[str, "tuple[int, int] | None"]
T = TypeVar("T")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class Pairing(Protocol):
    """The labels of images: checked for all images when they are opened."""

    def sample(self, name: str, image: Image.Image) -> tuple[Image.Image, Tensor]:
        """The part of the image that becomes the input, and its label. Raises UnreadableImageError."""
        ...


class PairSource:
    """A folder of images whose labels are masks, boxes or target images."""

    labeled, mapped = True, False

    def __init__(self, path: Path, labels: str, config: DataConfig, class_map: Classes | None) -> None:
        self.pixels = _Pixels(config)
        self.files = FolderSource(path, self.pixels, None)  # decodes to a picture
        self.classes: Classes = {}
        names = [self.files.name(index) for index in range(len(self.files))]
        self.pairing = _pairing(path, names, labels, config, class_map)

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files.name(index)

    def sample(self, index: int) -> Sample:
        picture: Any = self.files.sample(index)[0]
        image, label = self.pairing.sample(self.name(index), picture)
        return functional.pil_to_tensor(image), label

    def finish(self, inputs: Tensor) -> Tensor:
        return self.pixels.finish(inputs)


class _Pixels(Decoder):
    """Decodes a file to a picture."""

    def __call__(self, image: Any) -> Any:
        with _readable():
            return picture(image, self.mode)


@contextmanager
def _readable() -> Iterator[None]:
    """Raise UnreadableImageError for what decoders raise for a damaged file."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Exception as error:  # almost any exception
        raise UnreadableImageError(f"{type(error).__name__}: {error}"[:240]) from error


def is_pair(path: str) -> bool:
    return MARK in path


def open_pairs(path: str, config: DataConfig, class_map: Classes | None) -> PairSource:
    """Open IMAGES::LABELS.

    Raises:
        DataError: KD401 for a missing folder, KD402 for other classes, KD412 for labels that do not fit their images.
    """
    images, _, labels = path.partition(MARK)
    if not images or not labels or MARK in labels:
        raise DataError("KD401", f"{path}: write IMAGES::LABELS, such as photos::masks or photos::x4")
    if not Path(images).is_dir():
        raise DataError("KD401", f"{images}: no such folder; images with labels are files in a folder")
    place = labels.removeprefix("mask:").removeprefix("target:")
    if not is_degradation(labels) and not Path(place).exists():
        raise DataError("KD401", f"{place}: no such file or folder of labels; write IMAGES::LABELS")
    return PairSource(Path(images), labels, config, class_map)


def _pairing(path: Path, names: list[str], labels: str, config: DataConfig, class_map: Classes | None) -> Pairing:
    if is_degradation(labels):
        how = degradation(labels)
        if how.jpeg and config.input_size[0] not in (1, 3):
            raise DataError("KD412", f"{labels}: JPEG has 1 or 3 channels, and the net takes {config.input_size[0]}")
        return _Degraded(how, config)
    kind = next((kind for kind in ("mask", "target") if labels.startswith(f"{kind}:")), None)
    place = Path(labels if kind is None else labels.removeprefix(f"{kind}:"))
    sizes = {name: _size(path / name) for name in names}
    if place.suffix == ".json":
        return _boxes(_matched(names, coco_boxes(place, class_map), place), sizes, place, config)
    files = [file for file in sorted(place.rglob("*")) if file.suffix.lower() in (".xml", *_PICTURES)]
    own = _matched(names, {str(file.relative_to(place)): file for file in files}, place)
    if all(file.suffix == ".xml" for file in own.values()):
        if class_map is None:
            raise DataError("KD402", f"{place} names classes; number them with --class-map FILE")
        return _boxes({name: voc_boxes(file, class_map) for name, file in own.items()}, sizes, place, config)
    modes = {name: _mode(file) for name, file in own.items()}
    single = {name for name, mode in modes.items() if mode in _SINGLE}
    if kind is None and single and config.input_size[0] == 1:
        raise DataError("KD412", f"{place} may have masks or targets; write ::mask:{place} or ::target:{place}")
    if kind == "mask" or (kind is None and single):
        return _masks(own, modes, sizes, class_map, config)
    return _targets(own, sizes, config)


def _boxes(boxes: dict[str, ImageBoxes], sizes: Sizes, place: Path, config: DataConfig) -> Pairing:
    for name, own in boxes.items():
        if (size := sizes[name]) is not None:
            own.require_in(size, f"{place}: {name}")
    return _Boxes({name: own.rows for name, own in boxes.items()}, config)


def _masks(
    files: dict[str, Path], modes: dict[str, str], sizes: Sizes, class_map: Classes | None, config: DataConfig
) -> Pairing:
    if class_map is not None:
        raise DataError("KD402", "masks hold the numbers of classes; leave --class-map out")
    for name, file in files.items():
        if modes[name] not in _SINGLE:
            raise DataError("KD412", f"{file} has colors (mode {modes[name]}); a mask has one number per pixel")
        image, mask = sizes[name], _size(file)
        if image is not None and image != mask:
            raise DataError("KD412", f"the mask of {name} has {mask} pixels, and the image {image}")
    return _Masks(files, config)


def _targets(files: dict[str, Path], sizes: Sizes, config: DataConfig) -> Pairing:
    factors = {name: _factor(size, _size(files[name])) for name, size in sizes.items() if size is not None}
    first = next(iter(factors.values()), 1)
    odd = next((name for name, factor in factors.items() if factor is None or factor != first), None)
    if odd is not None:
        pixels = f"{_size(files[odd])} pixels, not a whole number of times {sizes[odd]}"
        raise DataError("KD412", f"the target of {odd} has {pixels}, the same for all images")
    return _Targets(files, first or 1, config)


def _matched(names: list[str], labels: Mapping[str, T], place: Path) -> dict[str, T]:
    """The label of each image: of the same path without its suffix, or of the same name where that is unique."""
    by_path = {_stem(label): own for label, own in labels.items()}
    last, images = Counter(PurePath(path).name for path in by_path), Counter(PurePath(name).stem for name in names)
    by_name = {PurePath(path).name: own for path, own in by_path.items() if last[PurePath(path).name] == 1}
    found = {}
    for name in names:
        stem = PurePath(name).stem
        own = by_path.get(_stem(name), by_name.get(stem) if images[stem] == 1 else None)
        if own is not None:
            found[name] = own
    if len(found) < len(names):
        missing = next(name for name in names if name not in found)
        raise DataError("KD412", f"{place} has labels for {len(found)} of {len(names)} images, none for {missing}")
    return found


def _stem(path: str) -> str:
    return PurePath(path).with_suffix("").as_posix()


class _Masks:
    """Masks of classes, resized to the nearest pixel."""

    def __init__(self, files: dict[str, Path], config: DataConfig) -> None:
        self.files, self.transform = files, _joint(config)

    def sample(self, name: str, image: Image.Image) -> tuple[Image.Image, Tensor]:
        with _readable(), Image.open(self.files[name]) as file:
            mask = tv_tensors.Mask(torch.from_numpy(np.asarray(file).astype(np.int64)))
        cut, label = self.transform(image, mask)
        return cut, label.as_subclass(torch.Tensor).long()


class _Boxes:
    """Boxes, clipped to the part of the image; one of which less than a pixel is left is dropped."""

    def __init__(self, boxes: dict[str, Tensor], config: DataConfig) -> None:
        self.boxes, self.transform = boxes, _joint(config)

    def sample(self, name: str, image: Image.Image) -> tuple[Image.Image, Tensor]:
        rows = self.boxes[name]
        size = (image.height, image.width)
        own = tv_tensors.BoundingBoxes(rows[:, :4], format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size)
        cut, boxes = self.transform(image, own)
        boxes = functional.clamp_bounding_boxes(boxes).as_subclass(torch.Tensor)
        kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
        return cut, packed_boxes(boxes[kept], rows[kept, 4])


class _Targets:
    """Target images, so many times larger."""

    def __init__(self, files: dict[str, Path], factor: int, config: DataConfig) -> None:
        self.files, self.factor, self.config = files, factor, config

    def sample(self, name: str, image: Image.Image) -> tuple[Image.Image, Tensor]:
        _, height, width = self.config.input_size
        if image.width < width or image.height < height:
            raise UnreadableImageError(f"smaller than the input of {height} x {width} pixels")
        part = window(image, self.config.crop_mode, width, height)
        with _readable():
            target = part.times(self.factor).cut(picture(self.files[name], image.mode))
        return part.cut(image), _values(target)


class _Degraded:
    """Images as targets, the inputs made from them."""

    def __init__(self, how: Degradation, config: DataConfig) -> None:
        self.how, self.config = how, config

    def sample(self, name: str, image: Image.Image) -> tuple[Image.Image, Tensor]:
        _, height, width = (side * self.how.factor for side in self.config.input_size)
        image = at_least(image, width, height)
        target = window(image, self.config.crop_mode, width, height).cut(image)
        return self.how(target), _values(target)


def _joint(config: DataConfig) -> Any:
    """timm's evaluation transform, for an image together with its mask or boxes."""
    height, width = config.input_size[1:]
    how = InterpolationMode(config.interpolation)
    if config.crop_mode in FULL_SIZE:
        return partial(_cut, mode=config.crop_mode, height=height, width=width)
    if config.crop_mode == "squash":
        return v2.Resize((height, width), interpolation=how)
    scaled = [int(side / config.crop_pct) for side in (height, width)]
    size = scaled[:1] if height == width else scaled
    return v2.Compose([v2.Resize(size, interpolation=how), v2.CenterCrop((height, width))])


def _cut(image: Image.Image, label: Any, *, mode: str, height: int, width: int) -> tuple[Image.Image, Any]:
    """A part at full size of an image and of its mask or boxes."""
    large = at_least(image, width, height)
    label = functional.resize(label, [large.height, large.width], InterpolationMode.NEAREST)
    part = window(large, mode, width, height)
    return part.cut(large), functional.crop(label, part.top, part.left, height, width)


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height; None for a file that cannot be read, which is skipped later."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return width, height
    except OSError:
        return None


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return str(image.mode)
    except OSError as error:
        raise DataError("KD412", f"{path}: {type(error).__name__} {error}") from error


def _factor(image: tuple[int, int], target: tuple[int, int] | None) -> int | None:
    """How many times larger the target is, None where that is no whole number."""
    if target is None:
        return None
    factor = target[0] // max(1, image[0])
    return factor if factor and (image[0] * factor, image[1] * factor) == target else None


def _values(image: Image.Image) -> Tensor:
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels.float() / 255
