"""Which MODELs a stranger may name: architectures that timm, torchvision or kdna lists, with plain arguments.

Building one of these runs code of the library only. It reads no file, contacts no server and loads no weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import timm
import torchvision

from .building import BUNDLED
from .names import ModelName

# kdna's own factories by the module that defines them; api/layouts.py is in a room above this one.
FACTORIES = {
    "kdna_convert.inputs.digits": ("digits_net",),
    "kdna_convert.api.layouts": (
        "kerneldna_resnet18",
        "kerneldna_resnet50",
        "kerneldna_mobilenetv2",
        "kerneldna_mobilenetv2_050",
    ),
}
# Arguments by which timm or torchvision reads a file, loads weights, or returns something else than the listed net.
_SPECIAL = re.compile(
    r"(pretrained|checkpoint|weights|feature|export|script|kwargs|cache)|no_jit$|pruned$|(.*_)?(cfg|cls|fn|file|dir|url)$"
)
_WORD = re.compile(r"[A-Za-z0-9_]{0,32}")  # the name of a layer or of a pooling, not a path
_LARGEST = {"img_size": 2048, "input_size": 2048, "in_chans": 1024, "num_classes": 1_000_000}
_LARGEST_OTHER = 65_536
_LONGEST = 64


def is_listed(name: ModelName) -> bool:
    """Whether timm, torchvision or kdna lists this architecture by name."""
    if name.source == "timm":
        architecture, _, tag = name.path.partition(".")
        known: bool = timm.is_model(architecture)
        return known and (not tag or name.path in timm.list_models(f"{architecture}.*", include_tags=True))
    if name.source == "torchvision":
        return name.path in torchvision.models.list_models()
    if name.source == "kdna":
        return name.path in BUNDLED
    return name.source == "module" and name.factory in FACTORIES.get(name.path, ())


def unusual_argument(name: ModelName) -> str | None:
    """The first argument that is not plain, as `key=value`; None where all are."""
    for key, value in _arguments(name):
        if not _is_plain(key, value):
            return f"{key}={value!r}" if key else repr(value)
    return None


def _arguments(name: ModelName) -> Iterator[tuple[str, Any]]:
    yield from (("", value) for value in name.args)
    yield from name.kwargs.items()


def _is_plain(key: str, value: Any) -> bool:
    if key == "pretrained":
        return value is False
    if _SPECIAL.match(key):
        return False
    values = value if isinstance(value, tuple | list) else (value,)
    return len(values) <= _LONGEST and all(_is_plain_value(key, each) for each in values)


def _is_plain_value(key: str, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= _LARGEST.get(key, _LARGEST_OTHER)
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) <= _LARGEST_OTHER
    return isinstance(value, str) and _WORD.fullmatch(value) is not None
