"""`kdna` in this process: a subprocess would import torch anew each time."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from kdna_convert.cli.app import app

TINY = str(Path(__file__).parent / "tiny.py")
NET = f"{TINY}:net"
FEW_IMAGES = ("--set", "calibration.images=30", "--set", "calibration.heldout=20")


def kdna(*arguments: object, input: str | None = None) -> Result:  # noqa: A002 - click's name for it
    """The outcome of a command line, 80 columns wide, without color; `input` is what is typed."""
    environment = {"COLUMNS": "80", "NO_COLOR": "1"}
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], prog_name="kdna", env=environment, input=input
    )


def convert(images: Path | str, model: str = NET) -> list[object]:
    """The beginning of a conversion of the tiny net."""
    return ["convert", model, "--data", images, *FEW_IMAGES, "--target-params", "0.6"]
