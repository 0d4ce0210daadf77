"""`kdna env`: versions and devices."""

from __future__ import annotations

from typing import Any

from .console import show, show_json
from .options import JsonFlag

SHOWN_VERSIONS = ("torch", "torchvision", "timm", "safetensors", "numpy", "scipy", "scikit-learn", "pydantic", "typer")


def env(json: JsonFlag = False) -> None:
    """Show versions and devices for a bug report.

    Example:
        kdna env
    """
    from ..report.ls import name_table

    facts = _environment()
    show_json(facts) if json else show(name_table({name: str(value) for name, value in facts.items()}))


def _environment() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    import torch

    from ... import __version__

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "kdna": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in SHOWN_VERSIONS},
        "threads": torch.get_num_threads(),
        "cuda": ", ".join(cuda) or "none",
    }
