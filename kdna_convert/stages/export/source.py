"""What a form writes, built from a conversion and the options."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ...core.specs import DataConfig
from ...inputs.models import example_input
from ...network.derive import factor, fold_weights
from ...network.folder import Conversion
from .export import ExportOptions, ExportSource
from .graph_outputs import graph_outputs

CHECKED = 9  # images of the user's data that the check runs on
LARGER = 32  # pixels that the check of a dynamic height or width adds


class Normalizing(nn.Module):
    """A net that takes images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, data: DataConfig) -> None:
        super().__init__()
        self.net = net
        for name, values in (("mean", data.mean), ("std", data.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, *[1] * (len(data.input_size) - 1)))

    def forward(self, images: Tensor) -> object:
        return self.net((images - self.mean) / self.std)


class InHalf(nn.Module):
    """A net whose weights have 16 bits, and which takes and returns 32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> object:
        return tree_map_only(Tensor, Tensor.float, self.net(images.half()))


def source_of(conversion: Conversion, options: ExportOptions, images: Tensor | None, *, graph: bool) -> ExportSource:
    """The source of a form; `images` (N, *input_size) are normalized.

    Raises:
        ModelError: KD312 for a net that has no graph for other images, if the form writes one.
    """
    run_as = factor if options.factored else fold_weights
    net = run_as(copy.deepcopy(conversion.model)).cpu().eval()
    example = example_input(conversion.data, 2 if "batch" in options.dynamic else 1)
    outputs = tuple(graph_outputs(net, example)) if graph else ()
    if options.normalize:
        net = Normalizing(net, conversion.data).eval()
        example = _denormalized(example, conversion.data)
        images = None if images is None else _denormalized(images, conversion.data)
    if options.fp16:
        net = InHalf(net.half()).eval()
    return ExportSource(net, example, outputs, options, conversion, images)


def check_inputs(source: ExportSource) -> tuple[list[Tensor], list[Tensor]]:
    """The batches for which the file must return what the net returns: noise of each size, and images if there are."""
    data, options = source.conversion.data, source.options
    most = 3 if "batch" in options.dynamic else 1
    noise = [example_input(data, batch, seed=batch) for batch in sorted({1, most})]
    larger = _larger(data, options.dynamic)
    if larger != data:
        noise.append(example_input(larger))
    if options.normalize:
        noise = [_denormalized(each, data) for each in noise]
    images = [] if source.images is None else list(source.images[:CHECKED].split(most))
    return noise, images


def _larger(data: DataConfig, dynamic: tuple[str, ...]) -> DataConfig:
    """The data with larger images along the dynamic axes."""
    axes = ("channels", "height", "width")
    sides = [side + LARGER * (name in dynamic) for name, side in zip(axes, data.input_size, strict=False)]
    return replace(data, input_size=(*sides, *data.input_size[len(sides) :]))


def _denormalized(images: Tensor, data: DataConfig) -> Tensor:
    shape = (-1, *[1] * (len(data.input_size) - 1))
    return images * torch.tensor(data.std).view(shape) + torch.tensor(data.mean).view(shape)
