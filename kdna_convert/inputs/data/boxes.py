"""Boxes and classes as labels, (MOST_BOXES, 5) per image, from COCO's json, VOC's xml and torchvision's targets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import torch
from torch import Tensor

from ...core.errors import DataError

# The most boxes of an image that are kept as labels. Rows beyond an image's boxes are -1.
MOST_BOXES = 300
# How far a box may be outside of its image, in pixels: what rounding leaves.
_SLACK = 2.0


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of an image (boxes, 5), x1, y1, x2, y2 and class, and its size as the annotation states it."""

    rows: Tensor
    stated: tuple[int, int] | None

    def require_in(self, size: tuple[int, int], where: str) -> None:
        """Raise DataError KD412 if the image has another size than stated, or a box is outside of it."""
        if self.stated is not None and self.stated != size:
            raise DataError("KD412", f"{where}: the annotation is of {self.stated} pixels, and the image has {size}")
        width, height = size
        for box in self.rows[:, :4].tolist():
            x1, y1, x2, y2 = box
            inside = x1 >= -_SLACK and y1 >= -_SLACK and x2 <= width + _SLACK and y2 <= height + _SLACK
            if not (inside and all(map(math.isfinite, box))):
                shown = [round(each, 1) for each in box]
                raise DataError("KD412", f"{where}: the box {shown} is not in its image of {size} pixels")


def packed_boxes(boxes: Tensor, classes: Tensor) -> Tensor:
    """Boxes (N, 4) of x1, y1, x2, y2 and classes (N,) as one tensor (MOST_BOXES, 5), float32."""
    rows = torch.full((MOST_BOXES, 5), -1.0)
    kept = torch.cat([boxes.float(), classes.float()[:, None]], 1)[:MOST_BOXES]
    rows[: len(kept)] = kept
    return rows


def packed_target(target: Mapping[str, Any]) -> Tensor:
    """torchvision's target of an image, {boxes, labels}, as packed_boxes. Raises DataError KD402."""
    if not {"boxes", "labels"} <= target.keys():
        raise DataError("KD402", f"a target of an image needs boxes and labels, and has {', '.join(map(str, target))}")
    boxes, classes = (torch.as_tensor(target[key]) for key in ("boxes", "labels"))
    if boxes.numel() != 4 * classes.numel():
        shapes = f"{tuple(boxes.shape)} and {tuple(classes.shape)}"
        raise DataError("KD402", f"a target has boxes and labels of shapes {shapes}; it needs (N, 4) and (N,)")
    return packed_boxes(boxes.reshape(-1, 4), classes.reshape(-1))


def coco_boxes(path: Path, classes: Mapping[str, int] | None) -> dict[str, ImageBoxes]:
    """The boxes of each image by its file name, from COCO's json. Crowds and boxes without area are left out.

    Args:
        path: The json.
        classes: Numbers of the category names; None: the category ids.

    Raises:
        DataError: KD412 for a file that is not COCO's json, KD402 for a category that `classes` lacks.
    """
    try:
        content = json.loads(path.read_bytes())
        images = {each["id"]: each for each in content["images"]}
        names = {each["id"]: each["name"] for each in content.get("categories", ())}
        rows: dict[Any, list[list[float]]] = {key: [] for key in images}
        for each in content["annotations"]:
            left, top, width, height = map(float, each["bbox"])
            if each.get("iscrowd") or width <= 0 or height <= 0:
                continue
            number = int(each["category_id"])
            if classes is not None:
                number = _number(classes, names[number], path)
            if number < 0:
                raise ValueError(f"category_id {number}")
            rows[each["image_id"]].append([left, top, left + width, top + height, float(number)])
        return {
            str(image["file_name"]): ImageBoxes(_tensor(rows[key]), _stated(image.get("width"), image.get("height")))
            for key, image in images.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("KD412", f"{path} is not COCO's json of boxes: {type(error).__name__} {error}") from error


def voc_boxes(path: Path, classes: Mapping[str, int]) -> ImageBoxes:
    """The boxes of one xml of VOC, from 0. Difficult ones and boxes without area are left out.

    Raises:
        DataError: KD412 for another file, KD402 for a class that `classes` lacks.
    """
    try:
        root = ET.parse(path).getroot()
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        rows = []
        for each in root.iter("object"):
            if each.findtext("difficult") == "1":
                continue
            number = _number(classes, (each.findtext("name") or "").strip(), path)
            x1, y1, x2, y2 = (float(each.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
            if x2 >= x1 and y2 >= y1:
                rows.append([x1 - 1, y1 - 1, x2, y2, float(number)])  # VOC counts pixels from 1
    except (OSError, ValueError, ET.ParseError) as error:
        raise DataError("KD412", f"{path} is not an annotation of VOC: {type(error).__name__} {error}") from error
    return ImageBoxes(_tensor(rows), _stated(width, height))


def _number(classes: Mapping[str, int], name: str, path: Path) -> int:
    if name not in classes:
        raise DataError("KD402", f"{path}: the class map does not name {name!r}")
    return classes[name]


def _stated(width: Any, height: Any) -> tuple[int, int] | None:
    return (int(width), int(height)) if width and height else None


def _tensor(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows).reshape(-1, 5)
