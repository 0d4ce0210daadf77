"""What one layer costs a device: cycles and live activations, dense or as a chain of plain layers. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ...core.specs import Layer, Shape
from ...inputs.boards import CycleFigures, LayerKind
from ...network.liveness import LiveStep


@dataclass(frozen=True)
class Link:
    """One plain layer.

    Attributes:
        kernel: (out, in / groups, *taps).
        channels: Of its input.
        positions: At which the kernel is applied, per image.
    """

    kernel: Shape
    channels: int
    positions: int

    @property
    def kind(self) -> LayerKind:
        if len(self.kernel) == 2:
            return "linear"
        if self.kernel[1] == 1 and self.channels > 1:
            return "depthwise"
        return "pointwise" if prod(self.kernel[2:]) == 1 else "convolution"

    @property
    def macs(self) -> int:
        """Multiply-adds per image."""
        return prod(self.kernel) * self.positions

    @property
    def gives(self) -> int:
        """The numbers of its output, of a layer that is not transposed."""
        return self.kernel[0] * self.positions


def dense_link(layer: Layer) -> Link:
    """A layer as it is; one that runs several times has the positions of all calls."""
    transposed = layer.kind.startswith("ConvTranspose")
    return Link(layer.shape, layer.input_channels, layer.in_positions if transposed else layer.out_positions)


def chain_links(kernels: Sequence[Shape], layer: Layer) -> tuple[Link, ...]:
    """A layer as a chain of these kernels. Up to the one with the most taps they run at the layer's input positions."""
    spatial = max(range(len(kernels)), key=lambda place: prod(kernels[place][2:]))
    channels = [layer.input_channels, *(kernel[0] for kernel in kernels)]
    return tuple(
        Link(kernel, channels[place], layer.in_positions if place < spatial else layer.out_positions)
        for place, kernel in enumerate(kernels)
    )


def cycles_of(links: Sequence[Link], figures: CycleFigures, calls: int = 1) -> float:
    """Cycles of a chain whose positions are those of all its calls."""
    return sum(link.macs * figures.per_mac(link.kind) + calls * figures.per_layer for link in links)


def chain_peak(links: Sequence[Link], step: LiveStep, calls: int = 1) -> int:
    """The most numbers that are alive while a chain runs: what its layers pass on counts, too.

    The input is alive in the first link, and in the others if a later step of the net reads it.
    """
    passed = [link.gives // calls for link in links[:-1]]
    takes, gives = [0, *passed], [*passed, step.gives]
    first = step.takes + gives[0]
    others = [step.keeps + read + written for read, written in zip(takes[1:], gives[1:], strict=True)]
    return step.beside + max([first, *others])
