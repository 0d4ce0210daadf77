"""Boxes and classes as labels, (MOST_BOXES, 5) per image, from COCO's json, VOC's xml and torchvision's targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    return packed_boxes(torch.as_tensor(target["boxes"]).reshape(-1, 4), torch.as_tensor(target["labels"]).reshape(-1))


def coco_boxes(path: Path) -> dict[str, Tensor]:
    """The boxes of each image by its file name, from COCO's json; a crowd is left out.

    Raises:
        DataError: KD412 for a file that is not COCO's json, or a box outside its image.
    """
    try:
        content = json.loads(path.read_bytes())
        names = {each["id"]: each for each in content["images"]}
        rows: dict[str, list[list[float]]] = {each["file_name"]: [] for each in names.values()}
        for each in content["annotations"]:
            if each.get("iscrowd"):
                continue
            image = names[each["image_id"]]
            left, top, width, height = map(float, each["bbox"])
            box = [left, top, left + width, top + height]
            _require_inside(box, image.get("width"), image.get("height"), f"{path}: {image['file_name']}")
            rows[image["file_name"]].append([*box, float(each["category_id"])])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("KD412", f"{path} is not COCO's json of boxes: {type(error).__name__} {error}") from error
    return {name: _tensor(own) for name, own in rows.items()}


def voc_boxes(path: Path, classes: Mapping[str, int]) -> Tensor:
    """The boxes of one xml of VOC, from 0; difficult ones are left out.

    Raises:
        DataError: KD412 for another file or a box outside its image, KD402 for a class that `classes` lacks.
    """
    try:
        root = ET.parse(path).getroot()
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        rows = []
        for each in root.iter("object"):
            if each.findtext("difficult") == "1":
                continue
            name = (each.findtext("name") or "").strip()
            if name not in classes:
                raise DataError("KD402", f"{path}: the class map does not name {name!r}")
            x1, y1, x2, y2 = (float(each.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
            box = [x1 - 1, y1 - 1, x2, y2]  # VOC counts pixels from 1
            _require_inside(box, width, height, str(path))
            rows.append([*box, float(classes[name])])
    except (OSError, ValueError, ET.ParseError) as error:
        raise DataError("KD412", f"{path} is not an annotation of VOC: {type(error).__name__} {error}") from error
    return _tensor(rows)


def _require_inside(box: Sequence[float], width: int | None, height: int | None, where: str) -> None:
    x1, y1, x2, y2 = box
    inside = x1 >= -_SLACK and y1 >= -_SLACK and x2 > x1 and y2 > y1
    inside = inside and (not width or x2 <= width + _SLACK) and (not height or y2 <= height + _SLACK)
    if not inside:
        size = f"{width} x {height} pixels" if width and height else "unknown size"
        raise DataError("KD412", f"{where}: the box {[round(each, 1) for each in box]} is not in its image of {size}")


def _tensor(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows).reshape(-1, 5)
