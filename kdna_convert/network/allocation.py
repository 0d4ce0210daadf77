"""A limit on what is allocated while something is built from a description that may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..core.errors import FolderError


class AllocatingAtMost(TorchDispatchMode):
    """Within this context, tensors of at most so many elements in all are created.

    Raises FolderError KD603 before the tensor that exceeds it exists.
    """

    def __init__(self, elements: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = elements

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self.left -= _elements(func.overloadpacket.__name__, args)
        if self.left < 0:
            raise FolderError("KD603", "the plan describes layers that are far larger than the net's; convert again")
        return func(*args, **(kwargs or {}))


def _elements(name: str, args: Sequence[Any]) -> int:
    """The elements of the tensor that an operation creates from a size, or like another tensor; 0 for others."""
    first = args[0] if args else None
    if isinstance(first, list | tuple) and all(isinstance(axis, int) for axis in first):
        return prod(first)
    return first.numel() if isinstance(first, Tensor) and name.endswith(("_like", "clone")) else 0
