"""A small converted net and its original for fine-tunes, and fine-tunes that stop between two steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_nets import route
from torch import Tensor, nn

from kdna_convert.core.specs import Family
from kdna_convert.network.derive import derive
from kdna_convert.network.folder.report import FinetuneReport
from kdna_convert.stages.finetune import RunFiles, Settings, Student
from kdna_convert.stages.finetune import finetune as finetune_by_settings
from kdna_convert.stages.finetune.training_state import State, read
from kdna_convert.tasks import CLASSIFY

MEMBERS = ("0", "3")
SIX_STEPS = ("--device", "cpu", "--steps", "6", "--batch-size", "8", "--save-every", "3")
ARGUMENTS = {"heldout", "files", "device", "progress", "config"}


def pair(routing: str | None = None) -> tuple[nn.Module, nn.Module]:
    """A net with two convolutions converted to a shared basis of rank 4, and its original."""
    original = nn.Sequential(
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(max(1, parameter[0].numel())))
    model = with_basis(original, MEMBERS, rank=4)
    route(model, routing, MEMBERS)
    return model, original


def with_basis(original: nn.Module, members: tuple[str, ...], rank: int) -> nn.Module:
    """A copy whose members share a basis: the leading right singular vectors of their kernels."""
    model = copy.deepcopy(original)
    kernels = [model.get_submodule(name).weight.detach().flatten(1) for name in members]
    basis = torch.linalg.svd(torch.cat(kernels), full_matrices=False).Vh[:rank]
    adapters = [{"U": kernel @ basis.T} for kernel in kernels]
    return derive(model, Family("basis", members, {"rank": rank}), {"V": basis}, adapters)


def images(count: int = 96, seed: int = 0) -> Tensor:
    """Noise that the nets of `pair` take."""
    return torch.randn(count, 6, 6, 6, generator=torch.Generator().manual_seed(seed))


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The names of the tensors that differ from those of a state dict."""
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def finetune(model: nn.Module, original: nn.Module, data: Any, **options: Any) -> FinetuneReport:
    """A fine-tune with the fields of its settings as keywords."""
    student = Student(model, original, nested=options.pop("nested", ()), task=options.pop("task", CLASSIFY))
    arguments = {name: value for name, value in options.items() if name in ARGUMENTS}
    settings = Settings(**{name: value for name, value in options.items() if name not in ARGUMENTS})
    return finetune_by_settings(student, data, settings, **arguments)


class KilledError(Exception):
    """Stands for a kill between two steps."""


def kill_at(step: int | None) -> Callable[[str, int, int], None]:
    """A progress function that raises KilledError at a step, or never."""

    def progress(what: str, done: int, total: int) -> None:
        if done == step:
            raise KilledError

    return progress


def run(
    work: Path | None,
    *,
    until: int | None = None,
    resume: bool = False,
    nets: Callable[[], tuple[nn.Module, nn.Module]] = pair,
    noise: Callable[..., Tensor] = images,
    **options: Any,
) -> dict[str, Tensor]:
    """The state dict after a fine-tune of 12 steps, saved at every fifth, killed at step `until`."""
    model, original = nets()
    common = {"epochs": 4, "batch_size": 32, "save_every": 5, "train": "shared", "heldout": noise(64, seed=1)}
    killed = {"files": RunFiles(work, resume, "mine"), "progress": kill_at(until)}
    finetune(model, original, noise(), **{**common, **killed, **options})
    return state(model)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def killed_and_resumed(work: Path, until: int, **options: Any) -> State:
    """Check that a killed run ends, once resumed, where a straight one does. Returns what the kill left on the disk."""
    with pytest.raises(KilledError):
        run(work, until=until, **options)
    left = read(work, "mine")
    assert left is not None
    assert left.numbers.step == (until - 1) // 5 * 5  # the kill comes before step `until` is saved
    assert same(run(work, resume=True, **options), _straight(*sorted(options.items())))
    return left


@cache
def _straight(*options: tuple[str, Any]) -> dict[str, Tensor]:
    """A run that nothing stops, made once for all kills."""
    return run(None, **dict(options))
