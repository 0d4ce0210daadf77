"""What passes to a tool in its own process, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...core.filesize import file_size
from ...core.specs import TensorSpec
from ...inputs.recipe import Recipe
from ...network.stored import stored_specs
from ...network.totals import DENSE_METADATA
from .comparison import Rung


@dataclass(frozen=True)
class Task:
    """One net to make. `model` names the original, None where it was handed over as a module; `layers` may change.

    `recipe` is for kdna's own rows, `rung` None where the tool has no budget.
    """

    peer: str
    rung: Rung | None
    model: str | None
    checkpoint: str | None
    inputs: Mapping[str, Any] | None
    layers: tuple[str, ...]
    recipe: Recipe

    @property
    def limit(self) -> int:
        """The most parameters, or bytes, that the whole net may have."""
        if self.rung is None:
            raise ValueError(f"{self.peer} was given no budget")
        return self.rung.limit


@dataclass(frozen=True)
class Candidate:
    """A net that a tool made. None where the count is that of the net's own tensors, written as safetensors.

    `net` takes images (N, C, H, W) and returns logits; nothing else is required of it.
    """

    net: nn.Module
    params: int | None = None
    bytes: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Made:
    """What a process hands back: the net, perhaps the same with new batch-norm statistics, and the seconds it took."""

    plain: Candidate
    renormed: nn.Module | None
    seconds: float
    renorm_seconds: float = 0.0


def count(net: nn.Module) -> int:
    """Parameters, one with several names counted once."""
    return sum(parameter.numel() for parameter in net.parameters())


def written(net: nn.Module, dtypes: Mapping[str, TensorSpec] | None = None) -> int:
    """Bytes of the net's tensors as a safetensors file, those in `dtypes` as it says."""
    specs = [(dtypes or {}).get(spec.name, spec) for spec in stored_specs(net)]
    return file_size(specs, DENSE_METADATA)


def plain_convs(net: nn.Module, layers: tuple[str, ...]) -> dict[str, nn.Conv2d]:
    """Those of the layers that a tool for torch's own Conv2d can split: ungrouped, undilated, padded by numbers."""
    found = {name: net.get_submodule(name) for name in layers}
    return {
        name: layer
        for name, layer in found.items()
        if type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    }


def example_of(images: Tensor) -> Tensor:
    return images[:1].float()
