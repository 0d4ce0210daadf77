"""The input and the output of a tool that runs in its own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...core.comparison import Rung
from ...core.filesize import file_size
from ...core.specs import TensorSpec
from ...inputs.recipe import Recipe
from ...network.stored import stored_specs
from ...network.totals import DENSE_METADATA


@dataclass(frozen=True)
class ToolRun:
    """One net to make.

    Attributes:
        peer: The tool, a key of PEERS.
        rung: The budget; None for a tool without one.
        model: The name of the original; None if it is a module, which is then in the folder.
        checkpoint: As for `convert`.
        inputs: As for `convert`.
        layers: The layers that the tool may change.
        recipe: The recipe, for kdna's own rows.
        outputs: As for `convert`, for kdna's own rows.
    """

    peer: str
    rung: Rung | None
    model: str | None
    checkpoint: str | None
    inputs: Mapping[str, Any] | None
    layers: tuple[str, ...]
    recipe: Recipe
    outputs: str | Callable[[Any], Any] | None = None

    @property
    def limit(self) -> int:
        """The most parameters, or bytes, that the whole net may have."""
        if self.rung is None:
            raise ValueError(f"{self.peer} has no budget")
        return self.rung.limit


@dataclass(frozen=True)
class Candidate:
    """A net that a tool made, and its counts. A count that is None is taken from the net, written as safetensors.

    `net` takes images (N, C, H, W) and returns logits.
    """

    net: nn.Module
    params: int | None = None
    bytes: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Made:
    """The result of a process: the net, for some peers also with new batch-norm statistics, and the seconds it took."""

    plain: Candidate
    renormed: nn.Module | None
    seconds: float
    renorm_seconds: float = 0.0


def count(net: nn.Module) -> int:
    """The number of parameters; a parameter with several names counts once."""
    return sum(parameter.numel() for parameter in net.parameters())


def written_bytes(net: nn.Module, dtypes: Mapping[str, TensorSpec] | None = None) -> int:
    """The size of the net's tensors as a safetensors file. `dtypes` replaces the specs of some tensors."""
    specs = [(dtypes or {}).get(spec.name, spec) for spec in stored_specs(net)]
    return file_size(specs, DENSE_METADATA)


def plain_convs(net: nn.Module, layers: tuple[str, ...]) -> dict[str, nn.Conv2d]:
    """Those of the layers that tools for Conv2d can split: no groups, no dilation, numeric padding."""
    modules = {name: net.get_submodule(name) for name in layers}
    return {
        name: layer
        for name, layer in modules.items()
        if type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    }


def example_of(images: Tensor) -> Tensor:
    return images[:1].float()
