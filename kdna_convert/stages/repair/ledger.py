"""What a stopped repair goes on from: one file, written after every few blocks, whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import FolderError, KdnaError
from ...core.tensorfile import load_tensors, save_tensors

# Seconds between two writes within a step: what a kill may cost.
EVERY = 15.0


@dataclass
class Position:
    """Where a repair stands: the step, the blocks of it that are done, what became of the steps before, and `notes`,
    whatever its caller wants to find again. `before` is the net's state when the step began.
    """

    step: int = 0
    block: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Ledger:
    """The file at `path`. `mark` names what it belongs to: a file of another mark is as good as none."""

    path: Path
    mark: str
    written: float = 0.0

    def read(self, model: nn.Module) -> Position | None:
        """Bring the model, in place, to where the file has it, and say where that is; None without such a file."""
        if not self.path.exists():
            return None
        try:
            tensors, said = load_tensors(self.path)
        except KdnaError:
            return None
        if said.get("mark") != self.mark:
            return None
        model.load_state_dict(_named("now", tensors))
        position: dict[str, Any] = json.loads(said["position"])
        return Position(**position, before=_named("before", tensors))

    def write(self, model: nn.Module, position: Position, *, now: bool = False) -> None:
        """Raises FolderError KD604 when the disk does not take it; the file before it is then still whole."""
        if not now and time.monotonic() - self.written < EVERY:
            return
        tensors = {f"now/{name}": tensor for name, tensor in state_of(model).items()}
        tensors |= {f"before/{name}": tensor for name, tensor in position.before.items()}
        said = {key: getattr(position, key) for key in ("step", "block", "records", "notes")}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(self.path, tensors, {"mark": self.mark, "position": json.dumps(said)})
        except OSError as error:
            raise FolderError("KD604", f"{self.path} cannot be written: {error}") from error
        self.written = time.monotonic()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a net's parameters and buffers."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def _named(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}
