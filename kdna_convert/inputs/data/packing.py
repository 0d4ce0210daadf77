"""Several inputs of a net as one tensor, so that images, batches and calibration handle one tensor only.

A batch of inputs (x, y) or {"image": x, "mask": y} is packed into a tensor (B, 1, numbers of one sample). A hook on the
net unpacks it before the forward pass. The net still takes its own inputs too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import DataError
from ...core.specs import Shape


@dataclass(frozen=True)
class Packing:
    """Where each input lies in the packed tensor.

    Attributes:
        keys: The names of the inputs of a net that takes a dict; None for a net that takes them one after the other.
        shapes: The shape of each input of one sample.
        dtypes: The type of each input.
    """

    keys: tuple[str, ...] | None
    shapes: tuple[Shape, ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def size(self) -> int:
        """The numbers of one sample."""
        return sum(map(prod, self.shapes))

    def pack(self, inputs: Any) -> Tensor:
        """A batch of inputs as one tensor (B, 1, size), float32. Raises DataError KD406 for inputs of other shapes."""
        if self.keys is not None and isinstance(inputs, Mapping) and set(self.keys) == set(inputs):
            inputs = {key: inputs[key] for key in self.keys}
        tensors, own = _tensors(inputs), packing_of(inputs)
        if own is None or (own.keys, own.shapes) != (self.keys, self.shapes) or len({*map(len, tensors)}) > 1:
            now = [tuple(each.shape) for each in tensors]
            raise DataError("KD406", f"DATA gives inputs of shapes {now}; every batch needs (N, ...) of {self.shapes}")
        return torch.cat([each.reshape(len(each), 1, -1).float() for each in tensors], dim=2)

    def unpack(self, packed: Tensor) -> tuple[Any, ...]:
        """The positional arguments of the net. Whole numbers are rounded, and not negative."""
        parts = packed.flatten(1).split([prod(shape) for shape in self.shapes], dim=1)
        inputs = [
            (part if dtype.is_floating_point else part.round().clamp_min(0).to(dtype)).reshape(len(packed), *shape)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        return tuple(inputs) if self.keys is None else (dict(zip(self.keys, inputs, strict=True)),)


def packing_of(inputs: Any) -> Packing | None:
    """How to pack a batch of several inputs; None for a single tensor. Raises DataError KD406 for other objects."""
    if not isinstance(inputs, Mapping | tuple | list):
        return None
    tensors = _tensors(inputs)
    keys = tuple(map(str, inputs)) if isinstance(inputs, Mapping) else None
    return Packing(keys, tuple(tuple(each.shape[1:]) for each in tensors), tuple(each.dtype for each in tensors))


def accept_packed(model: nn.Module, packing: Packing) -> None:
    """Make a net take packed inputs too, in place."""
    hooks = model._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, _Unpacking)]:
        del hooks[key]
    model.register_forward_pre_hook(_Unpacking(packing))


def takes_packed(model: nn.Module) -> bool:
    """Whether accept_packed changed this net."""
    return any(isinstance(hook, _Unpacking) for hook in model._forward_pre_hooks.values())


@dataclass(frozen=True)
class _Unpacking:
    """The hook."""

    packing: Packing

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        packed = args[0] if len(args) == 1 else None
        if isinstance(packed, Tensor) and packed.ndim == 3 and packed.shape[1:] == (1, self.packing.size):
            return self.packing.unpack(packed)
        return None


def _tensors(inputs: Any) -> list[Tensor]:
    values = [inputs] if isinstance(inputs, Tensor) else [*(inputs.values() if isinstance(inputs, Mapping) else inputs)]
    kinds = [type(each).__name__ for each in values if not isinstance(each, Tensor) or each.ndim == 0]
    if kinds or not values:
        raise DataError("KD406", f"DATA gives {kinds[0] if kinds else 'no input'}; a net's inputs must be tensors")
    return values
