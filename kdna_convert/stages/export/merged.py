"""`merged`: the original net's state dict with the converted weights, as one safetensors file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ...core.tensorfile import load_tensors, save_tensors
from ...core.versions import with_versions
from ...network.derive import fold
from .export import Export, ExportSource
from .graph_outputs import named_tensors


@dataclass(frozen=True)
class Merged(Export):
    """One safetensors file with the original's keys and dtypes. A routing that depends on the input is refused."""

    name: ClassVar[str] = "merged"
    suffix: ClassVar[str] = "-merged.safetensors"
    graph: ClassVar[bool] = False

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        state = fold(copy.deepcopy(source.net)).state_dict()
        save_tensors(place, {name: tensor.clone() for name, tensor in state.items()}, {"format": "pt"})
        return "loads into the original net"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, in torch."""
        net = fold(copy.deepcopy(source.net))
        net.load_state_dict(with_versions(load_tensors(place)[0], net), strict=True)
        with torch.no_grad():
            return named_tensors(net(images))

    def record(self, place: Path, facts: Mapping[str, str]) -> None:
        """As Export.record."""
        save_tensors(place, load_tensors(place)[0], {**facts, "format": "pt"})

    def usage(self, path: Path) -> str:
        """As Export.usage."""
        return f'model.load_state_dict(safetensors.torch.load_file("{path}"))'
