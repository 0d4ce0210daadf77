"""The state from which a stopped fine-tune resumes, in one file that is replaced atomically.

It holds the trainable tensors, the optimizer's tensors, the best tensors so far, and a few numbers. The order of the
images and their random views are not stored: data/views.py derives them from the seed and the number of the step.
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
    """The progress of a fine-tune.

    Attributes:
        step: The number of steps done.
        elapsed: The seconds they took.
        factor: The factor on the learning rate.
        falls: How often a loss was not finite.
        best: The index in `kls` of the validation that `State.best` is from.
        losses: The mean training loss before each validation.
        kls: The loss of each validation; the first is before any step.
        places: The step, the seconds, the learning rate and the mean agreement of the training batches with the teacher
            at each validation but the first.
        pending: The sum and the number of the training losses since the last validation.
        agreed: The sum of the agreements since then.
        scale: Engine.scale.
        price: Codes.price.
    """

    step: int = 0
    elapsed: float = 0.0
    factor: float = 1.0
    falls: int = 0
    best: int = 0
    losses: tuple[float, ...] = ()
    kls: tuple[float, ...] = ()
    places: tuple[tuple[int, float, float, float], ...] = ()
    pending: tuple[float, int] = (0.0, 0)
    agreed: float = 0.0
    scale: tuple[float, int] = (1.0, 0)
    price: float = 0.0


@dataclass(frozen=True)
class State:
    """Copies of tensors on the CPU.

    Attributes:
        numbers: The progress.
        now: The current trainable tensors.
        best: The tensors of the best validation.
        optimizer: The tensors of the optimizer.
        average: The moving average; empty without one.
        plain: The entries of the optimizer's state that are not tensors.
    """

    numbers: Numbers
    now: Tensors
    best: Tensors
    optimizer: Tensors
    average: Tensors
    plain: dict[str, Any] = field(default_factory=dict)

    def with_numbers(self, **changes: Any) -> State:
        return replace(self, numbers=replace(self.numbers, **changes))


def take(
    numbers: Numbers, parameters: Mapping[str, nn.Parameter], best: Tensors, optimizer: Any, average: Tensors
) -> State:
    """The current state. `best` and `average` are copies already."""
    tensors: Tensors = {}
    plain: dict[str, Any] = {}
    for number, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{number}/{key}"] = (
                _copy(value) if isinstance(value, Tensor) else value
            )
    return State(numbers, copies(parameters), best, tensors, average, plain)


def put(state: State, parameters: Mapping[str, nn.Parameter], optimizer: Any) -> None:
    """Load a state into the parameters and the optimizer, in place."""
    assign(parameters, state.now)
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**state.optimizer, **state.plain}.items():
        number, key = name.split("/", 1)
        entries.setdefault(int(number), {})[key] = value.clone() if isinstance(value, Tensor) else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def copies(parameters: Mapping[str, Tensor]) -> Tensors:
    return {name: _copy(parameter) for name, parameter in parameters.items()}


def assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy the values into the parameters, in place."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def write(folder: Path, state: State, mark: str) -> None:
    """Write the state to a folder. Raises FolderError KD604 if that fails; the previous file is then intact."""
    parts = {"now": state.now, "best": state.best, "optimizer": state.optimizer, "average": state.average}
    tensors = {f"{part}/{name}": tensor for part, own in parts.items() for name, tensor in own.items()}
    metadata = {"mark": mark, "numbers": json.dumps(vars(state.numbers)), "plain": json.dumps(state.plain)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / FILE, tensors, metadata)
    except OSError as error:
        raise FolderError("KD604", f"{folder / FILE} cannot be written: {error}; the previous one is intact") from error


def read(folder: Path, mark: str) -> State | None:
    """The state in a folder, None if there is none.

    Raises:
        FolderError: KD610 if the state is of another net, other images or other settings, or is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        tensors, metadata = load_tensors(path)
    except CheckpointError as error:
        raise FolderError("KD610", f"{error.message}; leave out --resume to start again") from error
    if metadata.get("mark") != mark:
        what = "is the state of another fine-tune: the net, the images or the settings differ"
        raise FolderError("KD610", f"{path} {what}. Repeat that command, or leave out --resume to start again")
    numbers = json.loads(metadata["numbers"])
    lists = {key: tuple(value) for key, value in numbers.items() if isinstance(value, list)}
    lists["places"] = tuple(map(tuple, numbers.get("places", ())))
    parts = {name: _part(name, tensors) for name in ("now", "best", "optimizer", "average")}
    return State(Numbers(**{**numbers, **lists}), **parts, plain=json.loads(metadata["plain"]))


def _part(part: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
