"""Pictures of one gray value each, and which of them a data set reads, in which order, with which labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import Images, batches

CONFIG = DataConfig((3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)


def picture(value: int) -> bytes:
    """A PNG file of 8x8 pixels, all of one value."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def paint(path: Path, value: int) -> None:
    """Write an image of 8x8 pixels, all of one value, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path)


def values(images: Images, **options: Any) -> list[int]:
    """The values of the pictures that were read, in order."""
    return [round(float(x.mean() * 255)) for inputs, _ in batches(images, **options) for x in inputs]


def labels(images: Images) -> list[int]:
    """The labels that were read, in order."""
    return [int(label) for _, batch_labels in batches(images) if batch_labels is not None for label in batch_labels]


def code_of(error: pytest.ExceptionInfo[DataError]) -> str:
    """The code of an error, whose message is one line."""
    assert "\n" not in str(error.value), "an error is one line"
    return error.value.code
