"""Images with labels that are no class: IMAGES::LABELS.

    photos::masks            a mask for each image, of the same name and size: pixels are classes, 255 is ignored
    photos::instances.json   COCO's json of boxes
    photos::Annotations      VOC's xml of boxes; --class-map numbers the classes
    low::high                a target for each image, of the same name, as large or a whole number of times larger
    photos::x4               the image is the target, and the input is made from it: x4, noise25, jpeg40 (degrading.py)

Masks and boxes are resized and cropped with their image. Targets are not resized: of both, a part at full size is cut.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePath
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from ...core.errors import DataError
from ...core.specs import DataConfig
from .boxes import coco_boxes, packed_boxes, voc_boxes
from .cropping import FULL_SIZE, at_least, window
from .degrading import Degradation, degradation, is_degradation
from .sources import Classes, Decoder, FolderSource, Sample, UnreadableImageError, opened

MARK = "::"
# The modes of pictures whose pixels are classes.
_MASKS = ("P", "L", "1", "I")
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
        try:
            return opened(image).convert(self.mode)
        except UnreadableImageError:
            raise
        except Exception as error:  # decoders raise almost any exception for a damaged file
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
    if not is_degradation(labels) and not Path(labels).exists():
        raise DataError("KD401", f"{labels}: no such file or folder of labels; write IMAGES::LABELS")
    return PairSource(Path(images), labels, config, class_map)


def _pairing(path: Path, names: list[str], labels: str, config: DataConfig, class_map: Classes | None) -> Pairing:
    if is_degradation(labels):
        return _Degraded(degradation(labels), config)
    place = Path(labels)
    if place.suffix == ".json":
        return _Boxes(_by_name(names, coco_boxes(place), place), config)
    files = {file.stem: file for file in sorted(place.rglob("*")) if file.suffix.lower() in (".xml", *_PICTURES)}
    own = {name: files[PurePath(name).stem] for name in names if PurePath(name).stem in files}
    if len(own) < len(names):
        missing = next(name for name in names if name not in own)
        raise DataError("KD412", f"{place} has labels for {len(own)} of {len(names)} images, none for {missing}")
    if all(file.suffix == ".xml" for file in own.values()):
        if class_map is None:
            raise DataError("KD402", f"{place} names classes; number them with --class-map FILE")
        return _Boxes({name: voc_boxes(file, class_map) for name, file in own.items()}, config)
    sizes = {name: (_size(path / name), _size(file)) for name, file in own.items()}
    with Image.open(next(iter(own.values()))) as first:
        are_masks = first.mode in _MASKS
    if are_masks:
        other = next((name for name, (image, mask) in sizes.items() if image != mask), None)
        if other is not None:
            image, mask = sizes[other]
            raise DataError("KD412", f"the mask of {other} has {mask} pixels, and the image {image}")
        return _Masks(own, config)
    factors = {name: _factor(*pair) for name, pair in sizes.items()}
    odd = next((name for name, factor in factors.items() if factor is None or factor != factors[names[0]]), None)
    if odd is not None:
        image, target = sizes[odd]
        raise DataError("KD412", f"the target of {odd} has {target} pixels, not a whole number of times {image}")
    return _Targets(own, factors[names[0]] or 1, config)


class _Masks:
    """Masks of classes, resized to the nearest pixel."""

    def __init__(self, files: dict[str, Path], config: DataConfig) -> None:
        self.files, self.transform = files, _joint(config)

    def sample(self, name: str, image: Image.Image) -> tuple[Image.Image, Tensor]:
        with Image.open(self.files[name]) as file:
            mask = tv_tensors.Mask(functional.pil_to_tensor(file)[0])
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
        with Image.open(self.files[name]) as file:
            target = part.times(self.factor).cut(file.convert(image.mode))
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


def _by_name(names: list[str], boxes: dict[str, Tensor], place: Path) -> dict[str, Tensor]:
    """The boxes of the images, by their path or the last part of it."""
    last = {PurePath(name).name: own for name, own in boxes.items()}
    found = {name: boxes.get(name, last.get(PurePath(name).name)) for name in names}
    missing = next((name for name, own in found.items() if own is None), None)
    if missing is not None:
        raise DataError("KD412", f"{place} does not list the image {missing}")
    return {name: own for name, own in found.items() if own is not None}


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            width, height = image.size
            return width, height
    except OSError as error:
        raise DataError("KD412", f"{path}: {type(error).__name__} {error}") from error


def _factor(image: tuple[int, int], target: tuple[int, int]) -> int | None:
    """How many times larger the target is, None where that is no whole number."""
    factor = target[0] // max(1, image[0])
    return factor if factor and (image[0] * factor, image[1] * factor) == target else None


def _values(image: Image.Image) -> Tensor:
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels.float() / 255
