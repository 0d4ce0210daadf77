"""The state that a stopped fine-tune resumes from: one file, written whole or not at all.

Beside the free tensors it holds the optimizer's, the best tensors so far, and a few numbers. The order of the data and
the draws of its views need no place in it: data/views.py makes them from the seed and the number of the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError, FolderError
from ...core.tensorfile import load_tensors, save_tensors

FILE = "finetune.safetensors"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Numbers:
    """Where a fine-tune stands. `losses` are the means between two looks at the held-out images, `kls` what was seen
    there, from the start on; `best` is the look that `State.best` was taken at. `factor` lowers the rate, `falls`
    counts the losses that were not finite, `pending` are the sum and the number of those since the last look. `scale`
    is Engine.scale, `price` Codes.price.
    """

    step: int = 0
    elapsed: float = 0.0
    factor: float = 1.0
    falls: int = 0
    best: int = 0
    losses: tuple[float, ...] = ()
    kls: tuple[float, ...] = ()
    pending: tuple[float, int] = (0.0, 0)
    scale: tuple[float, int] = (1.0, 0)
    price: float = 0.0


@dataclass(frozen=True)
class State:
    """Copies on the CPU: of the free tensors now and at their best, of what the optimizer keeps of each, and of their
    average, where one is kept."""

    numbers: Numbers
    now: Tensors
    best: Tensors
    optimizer: Tensors
    average: Tensors
    plain: dict[str, Any] = field(default_factory=dict)  # of the optimizer, what is no tensor

    def with_numbers(self, **changed: Any) -> State:
        return replace(self, numbers=replace(self.numbers, **changed))


def take(
    numbers: Numbers, parameters: Mapping[str, nn.Parameter], best: Tensors, optimizer: Any, average: Tensors
) -> State:
    """The present state; `best` and `average` are copies already."""
    kept: Tensors = {}
    plain: dict[str, Any] = {}
    for number, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            (kept if isinstance(value, Tensor) else plain)[f"{number}/{key}"] = (
                _copy(value) if isinstance(value, Tensor) else value
            )
    return State(numbers, copies(parameters), best, kept, average, plain)


def put(state: State, parameters: Mapping[str, nn.Parameter], optimizer: Any) -> None:
    """Bring the tensors and the optimizer, in place, to where the state has them."""
    assign(parameters, state.now)
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**state.optimizer, **state.plain}.items():
        number, key = name.split("/", 1)
        entries.setdefault(int(number), {})[key] = value.clone() if isinstance(value, Tensor) else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def copies(parameters: Mapping[str, Tensor]) -> Tensors:
    return {name: _copy(parameter) for name, parameter in parameters.items()}


def assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """In place."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def write(folder: Path, state: State, mark: str) -> None:
    """Raises FolderError KD604 when the disk does not take it; the file before it is then still whole."""
    parts = {"now": state.now, "best": state.best, "optimizer": state.optimizer, "average": state.average}
    tensors = {f"{part}/{name}": tensor for part, own in parts.items() for name, tensor in own.items()}
    metadata = {"mark": mark, "numbers": json.dumps(vars(state.numbers)), "plain": json.dumps(state.plain)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / FILE, tensors, metadata)
    except OSError as error:
        raise FolderError("KD604", f"{folder / FILE} cannot be written: {error}; the one before it is whole") from error


def read(folder: Path, mark: str) -> State | None:
    """The state in a folder, None where there is none.

    Raises FolderError KD610 when it was left by another run: of another net, other images or other settings.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        tensors, metadata = load_tensors(path)
    except CheckpointError as error:
        raise FolderError("KD610", f"{error.message}; leave out --resume to begin anew") from error
    if metadata.get("mark") != mark:
        what = "was left by a fine-tune of another net, or with other images or settings"
        raise FolderError("KD610", f"{path} {what}: repeat that command, or leave out --resume to begin anew")
    numbers = json.loads(metadata["numbers"])
    lists = {key: tuple(value) for key, value in numbers.items() if isinstance(value, list)}
    parts = {name: _part(name, tensors) for name in ("now", "best", "optimizer", "average")}
    return State(Numbers(**{**numbers, **lists}), **parts, plain=json.loads(metadata["plain"]))


def _part(part: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
