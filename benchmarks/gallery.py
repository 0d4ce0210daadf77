"""The pages of docs/gallery: four nets converted by a recipe each, and the page of each folder.

    python benchmarks/gallery.py DATA [NAME ...]

The commands go to stderr. They run in a folder with links to DATA and to examples/, so that the pages name no path of
the machine. Photographs of DATA are not shown (--no-images); the digits and the two of scikit-learn are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from commands import kdna
from sklearn.datasets import load_sample_images
from torchvision.transforms.functional import to_pil_image

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs" / "gallery"
DIVERSE, SPLIT = (
    "data/imagenet/calibration_diverse",
    ("--set", "calibration.images=392", "--set", "calibration.heldout=100"),
)


@dataclass(frozen=True)
class Entry:
    """A net of the gallery: what `kdna convert` and `kdna report` are given."""

    name: str
    convert: tuple[str, ...]
    report: tuple[str, ...]


ENTRIES = (
    Entry(
        "digits",
        ("kdna:digits", "--data", "kdna:digits/train", "--target-params", "0.4"),
        ("--data", "kdna:digits/test"),
    ),
    Entry(
        "resnet56",
        (
            *("examples/cifar_resnet.py:resnet56", "--checkpoint", "data/checkpoints/cifar10_resnet56.safetensors"),
            *("--recipe", "accurate", "--target-params", "0.25", "--data", "data/cifar10/train"),
        ),
        ("--data", "data/cifar10/test", "--limit", "2000", "--no-images"),
    ),
    Entry(
        "resnet18",
        (
            *("torchvision:resnet18", "--checkpoint", "data/checkpoints/imagenet_resnet18.safetensors"),
            *("--target-params", "0.5", "--data", DIVERSE, *SPLIT),
        ),
        ("--data", "data/imagenet/eval", "--class-map", "data/imagenet/class_map.txt", "--no-images"),
    ),
    Entry(
        "realesrgan",
        (
            *("examples/realesrgan.py:x4plus_anime", "--recipe", "smallest", "--target-bytes", "1/8"),
            *("--checkpoint", "data/checkpoints/realesrgan_x4plus_anime.safetensors", "--crop", "middle"),
            *("--data", DIVERSE, "--set", "calibration.images=52", "--set", "calibration.heldout=12"),
        ),
        ("--data", "photographs"),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help="only these")
    arguments = parser.parse_args()
    GALLERY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "data").symlink_to(arguments.data.resolve())
        (place / "examples").symlink_to(ROOT / "examples")
        write_photographs(place / "photographs")
        os.chdir(place)
        for entry in ENTRIES:
            if not arguments.names or entry.name in arguments.names:
                kdna("convert", *entry.convert, "-o", entry.name)
                kdna("report", entry.name, *entry.report)
                shutil.copyfile(place / entry.name / "report.html", GALLERY / f"{entry.name}.html")


def write_photographs(folder: Path) -> None:
    """The two photographs of scikit-learn (CC BY 2.0), as the super-resolution guide shows them."""
    folder.mkdir()
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        to_pil_image(pixels).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
