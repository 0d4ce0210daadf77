"""Convolutions that run outside of any layer: in scripted or traced code, or as a function of a parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from ...core.specs import Layer, Shape

_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten._convolution)


@dataclass
class FunctionalConvolutions:
    """The convolutions that a forward pass ran outside of the listed layers, by name."""

    found: dict[str, Layer] = field(default_factory=dict)

    def rows(self, images: int) -> list[Layer]:
        """One row for each, positions per image."""
        return [
            replace(
                layer,
                in_positions=math.ceil(layer.in_positions / images),
                out_positions=math.ceil(layer.out_positions / images),
            )
            for layer in self.found.values()
        ]


@contextmanager
def watch_functions(model: nn.Module, listed: Mapping[str, nn.Module]) -> Iterator[FunctionalConvolutions]:
    """Find the convolutions that the model runs inside the block and no listed layer runs.

    A kernel is named by its parameter, or by the module that computes it.
    """
    convolutions = FunctionalConvolutions()
    mode = _Mode(model, listed, convolutions.found)
    handles = [
        register_module_forward_pre_hook(lambda module, args: mode.running.append(module)),
        register_module_forward_hook(lambda module, args, output: mode.leave(module), always_call=True),
    ]
    try:
        with mode:
            yield convolutions
    finally:
        for handle in handles:
            handle.remove()


class _Mode(TorchDispatchMode):
    def __init__(self, model: nn.Module, listed: Mapping[str, nn.Module], found: dict[str, Layer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {module: name for name, module in model.named_modules()}
        self.listed, self.found = set(listed.values()), found
        self.running: list[nn.Module] = []
        self.owners = {
            _memory(tensor): (module, name)
            for module in self.names
            for name, tensor in module.named_parameters(recurse=False)
            if not is_lazy(tensor) and type(tensor.data) is Tensor
        }

        self.constants = {_memory(tensor) for tensor in model.buffers() if type(tensor) is Tensor}

    def leave(self, module: nn.Module) -> None:
        if self.running and self.running[-1] is module:
            self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in _CONVOLUTIONS and not self.listed & set(self.running):
            self._add(args, output)
        return output

    def _add(self, args: Any, output: Tensor) -> None:
        x, weight, transposed, groups = args[0], args[1], args[6], args[8]
        module, parameter = self.owners.get(_memory(weight), (self.running[-1] if self.running else None, "weight"))
        if module not in self.names or module in self.listed:
            return
        if _memory(weight) in self.constants or not module._parameters:  # a fixed filter
            return
        place = self.names[module]
        name = place if parameter == "weight" else ".".join(part for part in (place, parameter) if part)
        layer = self.found.get(name)
        size = weight.shape
        shape: Shape = (size[1] * groups, size[0] // groups, *size[2:]) if transposed else tuple(size)
        self.found[name] = Layer(
            name=name,
            kind=str(getattr(module, "original_name", type(module).__name__)),
            shape=shape,
            groups=groups,
            stride=tuple(args[3]),
            dilation=tuple(args[5]),
            in_positions=x.numel() // x.shape[1] + (layer.in_positions if layer else 0),
            out_positions=output.numel() // output.shape[1] + (layer.out_positions if layer else 0),
            reason="KD120",
        )


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
