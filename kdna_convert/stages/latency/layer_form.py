"""What is timed: a layer as one or several plain layers, at the size of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from ...core.specs import Shape
from ...network.patches import watch


@dataclass(frozen=True)
class LayerForm:
    """A chain of plain layers; a dense layer is a chain of one.

    Attributes:
        kernels: (out, in / groups, *taps) of each, in the order in which they run. Linear layers have no taps.
        input: (batch, in, *sides) of the first; of linear layers (rows, in).
        stride: Of the layer with the most taps, as are `pads` and `dilation`. The others have stride 1 and no padding.
        pads: Zeros before and after each side: all those before, then all those after.
        dilation: Distance of the taps.
    """

    kernels: tuple[Shape, ...]
    input: Shape
    stride: Shape
    pads: Shape
    dilation: Shape

    @property
    def spatial(self) -> int:
        """The place of the layer with the most taps; the first, if all have one."""
        return max(range(len(self.kernels)), key=lambda place: prod(self.kernels[place][2:]))

    @property
    def groups(self) -> tuple[int, ...]:
        channels = [self.input[1], *(kernel[0] for kernel in self.kernels)]
        return tuple(ins // kernel[1] for ins, kernel in zip(channels, self.kernels, strict=False))

    @property
    def key(self) -> dict[str, Any]:
        """Plain values that are equal for equal forms."""
        return {name: list(map(list, each)) if name == "kernels" else list(each) for name, each in asdict(self).items()}


def dense_form(layer: Any, size: Shape) -> LayerForm:
    """A convolution or linear layer as it is, on an input (batch, in, *sides), or (batch, *positions, in) of a linear
    layer."""
    shape = tuple(layer.weight.shape)
    if isinstance(layer, nn.Linear):
        return LayerForm((shape,), (prod(size[:-1]), size[-1]), (), (), ())
    stride, dilation = tuple(layer.stride), tuple(layer.dilation)
    return LayerForm((shape,), size, stride, _pads(layer, size[2:]), dilation)


def chain_form(dense: LayerForm, kernels: Sequence[Tensor]) -> LayerForm:
    """The same layer as a chain of these kernels."""
    return LayerForm(
        tuple(tuple(kernel.shape) for kernel in kernels), dense.input, dense.stride, dense.pads, dense.dilation
    )


def input_sizes(model: nn.Module, example: Tensor, names: Sequence[str]) -> dict[str, list[Shape]]:
    """The shapes of the inputs that these layers get in one forward pass; a layer that runs twice has two."""
    sizes: dict[str, list[Shape]] = {name: [] for name in names}

    def see(name: str, module: nn.Module, x: Any, y: Any) -> None:
        if isinstance(x, Tensor):
            sizes[name].append(tuple(x.shape))

    with watch(model, {name: model.get_submodule(name) for name in names}, see):
        model(example)
    return sizes


def _pads(layer: Any, sides: Shape) -> Shape:
    """The zeros before and after each side. Layers that pad for as many outputs as the stride allows differ by size."""
    if isinstance(layer.padding, tuple) and type(layer).__name__ != "Conv2dSame":
        return (*layer.padding, *layer.padding)
    if layer.padding == "valid":
        return (0,) * (2 * len(sides))
    rows = zip(sides, layer.weight.shape[2:], layer.stride, layer.dilation, strict=True)
    wanted = [max((-(-side // step) - 1) * step + (taps - 1) * far + 1 - side, 0) for side, taps, step, far in rows]
    return (*(each // 2 for each in wanted), *(each - each // 2 for each in wanted))
