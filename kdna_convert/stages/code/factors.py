"""Quantize the tensors of a derived layer that are not the last factor of its kernel.

The kernel of a member is mostly W = T R, with T (out x k) its own, the last factor, and R made of all other tensors,
the shared ones among them. T is solved for once R is rounded, so it comes last (sequential.py). The other tensors,
called banks, are shared or small; their step follows from the mean curvature of the family's weighted output error.
Where a row of a bank can be scaled up and a column of T down, rows are first scaled to equal curvature, so that one
step serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...codecs.quantization_steps import nearest_step
from ...core.linalg import Moment, times
from ...network.derive import Derived, derived_layers
from .grid import put_on_grid

# Random directions, drawn with a fixed seed, along which a curvature is measured (Hutchinson's diagonal estimate).
_PROBES = 8


@dataclass(frozen=True)
class Member:
    """A derived layer, the second moment of its inputs, and the cost of errors in its outputs."""

    name: str
    derived: Derived
    moment: Moment
    cost: float


@dataclass(frozen=True)
class Factor:
    """The part of a layer's kernel that is solved for and rounded last.

    The kernel is `tensor` times `rows_kn`; without rows it is the tensor itself. `letter` names the tensor.
    """

    letter: str
    tensor: Tensor
    rows_kn: Tensor | None

    def input_moment(self, moment_nn: Tensor) -> Tensor:
        """The second moment of the factor's inputs, from that of the layer's."""
        return moment_nn if self.rows_kn is None else self.rows_kn @ moment_nn @ self.rows_kn.T

    @property
    def patch(self) -> int:
        return self.tensor[0].numel() if self.rows_kn is None else self.rows_kn.shape[1]

    @property
    def values_ok(self) -> Tensor:
        return self.tensor.detach().double().cpu().flatten(1)


def factor_of(module: Any) -> Factor | None:
    """A layer's last factor; None if its kernel has another form."""
    derived = derived_layers(module).get("")
    if derived is None:
        return Factor("weight", module.weight, None)
    last = last_factor(derived)
    return None if last is None else Factor(last[0], derived.adapter[last[0]], last[1])


def last_factor(derived: Derived) -> tuple[str, Tensor] | None:
    """The letter of T and the rows R (k x patch, float64) of a kernel T R; None if it has another form."""
    shared, adapter = map(_exact, derived.tensors())
    for letter, tensor in adapter.items():
        if tensor.ndim != 2 or len(tensor) != derived.shape[0] or not tensor.is_floating_point():
            continue
        width = tensor.shape[1]
        with_identity = {**adapter, letter: torch.eye(width, dtype=torch.float64)}
        try:
            rows_kn = derived.scheme.expand(shared, with_identity, (width, *derived.shape[1:])).flatten(1)
        except RuntimeError:  # other tensors of the scheme have the layer's width too
            continue
        kernel_on = derived.scheme.expand(shared, adapter, derived.shape).flatten(1)
        if torch.allclose(tensor @ rows_kn, kernel_on, rtol=1e-6, atol=1e-9 * float(kernel_on.abs().max())):
            return letter, rows_kn
    return None


def _exact(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in float64, indices as they are."""
    return {key: t.detach().cpu().to(torch.float64 if t.is_floating_point() else t.dtype) for key, t in part.items()}


def balance_banks(model: nn.Module, member: Callable[[str, Derived], Member]) -> dict[str, float]:
    """Scale the banks of every family in place so that one step per tensor serves all of its rows.

    Returns:
        The step of each bank per unit of delta, by stored name.
    """
    families: dict[int, list[Member]] = {}
    for name, derived in derived_layers(model).items():
        families.setdefault(id(derived.shared), []).append(member(name, derived))
    spreads: dict[str, float] = {}
    for members in families.values():
        for where, part, letter in _banks(members):
            users = members if part is members[0].derived.shared else [m for m in members if m.name == where]
            _balance(users, part, letter)
            curvature = _curvature(users, part, letter).mean().clamp_min(1e-30)
            spreads[f"{where}.{letter}"] = float(curvature.rsqrt())
    return spreads


def round_banks(model: nn.Module, spreads: Mapping[str, float], delta: float) -> dict[str, int]:
    """Round the banks of a balanced net in place. Returns the numbers of their steps by stored name."""
    steps: dict[str, int] = {}
    for layer, derived in derived_layers(model).items():
        for part in (derived.shared, derived.adapter) if derived.is_owner else (derived.adapter,):
            for letter, tensor in part.items():
                name = f"{layer}.{letter}"
                if name in spreads:
                    steps[name] = nearest_step(delta * spreads[name])
                    put_on_grid(tensor, steps[name])
    return steps


def _banks(members: list[Member]) -> Iterator[tuple[str, Any, str]]:
    """(layer, its ParameterDict, letter) of every bank."""
    owner = members[0]
    for letter in owner.derived.shared:
        yield owner.name, owner.derived.shared, letter
    for each in members:
        last = last_factor(each.derived)
        for letter, tensor in each.derived.adapter.items():
            if tensor.is_floating_point() and (last is None or letter != last[0]):
                yield each.name, each.derived.adapter, letter


def _balance(members: list[Member], part: Any, letter: str) -> None:
    """Scale a bank's rows to equal curvature and the last factors' columns back, if the kernels stay the same."""
    tensor = part[letter]
    lasts = [(member, last_factor(member.derived)) for member in members]
    if any(last is None or len(last[1]) != len(tensor) for _, last in lasts) or tensor.ndim < 2:
        return
    before = [member.derived().detach().clone() for member in members]
    row = _curvature(members, part, letter).flatten(1).mean(1).clamp_min(1e-30).sqrt()
    scale_q = (row / row.log().mean().exp()).to(tensor).clamp(1e-3, 1e3)
    columns = [member.derived.adapter[last[0]] for member, last in lasts if last is not None]
    _scale(tensor, columns, scale_q)
    after = [member.derived().detach() for member in members]
    if not all(
        torch.allclose(new, old, rtol=1e-3, atol=1e-5 * float(old.abs().max()))
        for new, old in zip(after, before, strict=True)
    ):
        _scale(tensor, columns, 1 / scale_q)


def _scale(tensor: Tensor, columns: list[Tensor], scale_q: Tensor) -> None:
    with torch.no_grad():
        tensor.mul_(scale_q.view(-1, *(1,) * (tensor.ndim - 1)))
        for own in columns:
            own.div_(scale_q)


def _curvature(members: list[Member], part: Any, letter: str) -> Tensor:
    """The estimated growth of the weighted output error with the square of each number of a tensor, float64."""
    generator = torch.Generator().manual_seed(0)
    tensor = part[letter].detach().double().cpu()
    total = torch.zeros_like(tensor)
    for _ in range(_PROBES):
        direction = torch.randint(0, 2, tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
        direction.requires_grad_()
        error = torch.zeros((), dtype=torch.float64)
        for member in members:
            change_on = _kernel(member, part, letter, tensor + direction) - _kernel(member, part, letter, tensor)
            error = error + member.cost * (times(change_on, member.moment) * change_on).sum()
        (slope,) = torch.autograd.grad(error, direction)
        total += (direction * slope / 2).detach() / _PROBES
    return total.clamp_min(0)


def _kernel(member: Member, part: Any, letter: str, value: Tensor) -> Tensor:
    derived = member.derived
    shared, adapter = map(_exact, derived.tensors())
    (shared if part is derived.shared else adapter)[letter] = value
    kernel: Tensor = derived.scheme.expand(shared, adapter, derived.shape)
    return kernel.flatten(1)
