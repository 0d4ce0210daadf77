"""Checkpoints as training scripts write them: the weights under a key, beside an epoch, arguments and scores."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ...core.errors import CheckpointError

# Keys under which training scripts store weights. Moving averages come first: they are the weights to use.
CONTAINERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "module", "network", "params"),
)
_DEPTH = 4  # containers inside each other
_COUNTER = "n_averaged"  # torch's AveragedModel counts beside its weights


class CheckpointFile(str):
    """The path of a checkpoint that remembers which of its weights are meant: a key, with dots, and a prefix."""

    key: str | None
    prefix: str | None

    def __new__(cls, path: str, key: str | None = None, prefix: str | None = None) -> CheckpointFile:
        made = super().__new__(cls, path)
        made.key, made.prefix = key, prefix
        return made

    def __reduce__(self) -> tuple[type[CheckpointFile], tuple[str, str | None, str | None]]:
        return CheckpointFile, (str(self), self.key, self.prefix)


def opened(content: Any, path: str) -> tuple[dict[str, Tensor], str]:
    """The state dict in a checkpoint and its key: that of the CheckpointFile, else the first known container.

    Raises:
        CheckpointError: KD304 if there is none.
    """
    key = getattr(path, "key", None)
    content, where = (_at(content, key, path), key) if key else (content, "")
    outer: list[Any] = []
    while name := next((known for known in CONTAINERS if _is_held(content, known)), None):
        outer.append(content)
        content, where = content[name], f"{where}.{name}".lstrip(".")
        if any(content is other for other in outer):
            raise CheckpointError("KD304", f"{path} holds a state dict inside itself; save the state dict alone")
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError("KD304", f"{path} holds a {type(content).__name__} instead of a state dict")
    tensors = {name: value for name, value in content.items() if name != _COUNTER}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            keys = [key for key, _ in inner_states(content)]
            way_out = f"pass --checkpoint-key {keys[0]}" if keys else "save the state dict alone, or as `state_dict`"
            raise CheckpointError(
                "KD304", f"{path}: {name!r} is a {type(value).__name__} instead of a tensor; {way_out}"
            )
    return tensors, where


def inner_states(
    content: Any, key: str = "", seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors in a checkpoint, with its key."""
    if not isinstance(content, Mapping) or id(content) in seen or len(seen) > _DEPTH:
        return
    tensors = {name: value for name, value in content.items() if name != _COUNTER}
    if tensors and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()):
        yield key, tensors
        return
    for name, value in content.items():
        if isinstance(name, str):
            yield from inner_states(value, f"{key}.{name}".lstrip("."), seen | {id(content)})


def remark(path: str, key: str, prefix: str) -> str | None:
    """Which weights were taken, where the file leaves a choice."""
    if not key and not prefix:
        return None
    where = " ".join(part for part in (key and f"under {key}", prefix and f"after the prefix {prefix}") if part)
    average = ", a moving average" if "ema" in key.split(".")[-1].split("_") else ""
    file = pathlib.Path(path).name
    return f"weights: those {where} in {file}{average}; --checkpoint-key and --checkpoint-prefix choose others"


def _is_held(content: Any, name: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(name), Mapping)


def _at(content: Any, key: str, path: str) -> Any:
    """What stands under a key, which may have dots; a part of the key may itself have dots."""
    if isinstance(content, Mapping):
        if key in content:
            return content[key]
        for name in content:
            if isinstance(name, str) and key.startswith(f"{name}."):
                return _at(content[name], key.removeprefix(f"{name}."), path)
        present = ", ".join(str(name) for name in list(content)[:8])
        raise CheckpointError("KD304", f"{path} has no key {key}; it has {present}")
    raise CheckpointError("KD304", f"{path} has no key {key}: it holds a {type(content).__name__}")


def _number(dtype: np.dtype[Any], raw: bytes | None = None) -> Any:
    """A numpy scalar from its bytes, as a Python number."""
    if dtype.hasobject or raw is None:
        raise TypeError("an object is not a number")
    return np.frombuffer(raw, dtype=dtype, count=1)[0].item()


def _latin(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as pickle's older protocols write them."""
    return text.encode("latin1")


# Plain data that scripts store beside the weights, by the names in a pickle; loading it runs nothing of the file.
ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(kind for kind in (type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFD")),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_latin, "_codecs.encode"),
    *((pathlib.PurePosixPath, f"pathlib.{kind}") for kind in ("PosixPath", "PurePosixPath")),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
]
