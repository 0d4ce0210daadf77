"""The file from which an interrupted repair resumes. It is replaced atomically, at most every 15 seconds."""

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
from ...core.versions import with_versions

# Seconds between two writes within a step: the most work that an interruption loses.
EVERY = 15.0


@dataclass
class RepairState:
    """The progress of a repair.

    Attributes:
        step: The index of the current step.
        block: The number of its blocks that are done.
        records: The results of the steps before it.
        notes: Data of the caller.
        before: The net's tensors when the step began.
    """

    step: int = 0
    block: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RepairFile:
    """The state of a repair and of its net, in the file at `path`.

    `mark` names what the file belongs to; a file with another mark is ignored.
    """

    path: Path
    mark: str
    written: float = 0.0

    def read(self, model: nn.Module) -> RepairState | None:
        """Load the net's tensors into `model` in place and return the state; None if there is no such file."""
        if not self.path.exists():
            return None
        try:
            tensors, metadata = load_tensors(self.path)
        except KdnaError:
            return None
        if metadata.get("mark") != self.mark:
            return None
        restore(model, _named("now", tensors))
        numbers: dict[str, Any] = json.loads(metadata["position"])
        return RepairState(**numbers, before=_named("before", tensors))

    def write(self, model: nn.Module, state: RepairState, *, now: bool = False) -> None:
        """Write the file unless it was written less than `EVERY` seconds ago; with `now`, always.

        Raises:
            FolderError: KD604 if it cannot be written; the previous file is then intact.
        """
        if not now and time.monotonic() - self.written < EVERY:
            return
        tensors = {f"now/{name}": tensor for name, tensor in copy_state(model).items()}
        tensors |= {f"before/{name}": tensor for name, tensor in state.before.items()}
        numbers = {key: getattr(state, key) for key in ("step", "block", "records", "notes")}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(self.path, tensors, {"mark": self.mark, "position": json.dumps(numbers)})
        except OSError as error:
            raise FolderError("KD604", f"{self.path} cannot be written: {error}") from error
        self.written = time.monotonic()


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a net's parameters and buffers."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def is_in_state(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether the net's tensors are those that `copy_state` returned."""
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `copy_state` returned."""
    model.load_state_dict(with_versions(state, model))


def _named(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}
