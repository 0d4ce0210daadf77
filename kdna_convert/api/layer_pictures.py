"""Pictures of a net's kernels and of a conversion's families, for its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..core.measurements import Analysis
from ..core.specs import Family, Shape
from ..html.picture import FamilyPictures, Kernel, MemberPictures, Picture, TensorPicture, pictures_of
from ..network.derive import Derived, derived_layers
from ..network.folder import Conversion
from ..network.standardizing import running_kernel

T = TypeVar("T")

# The most families, and the most layers of one; and the most layers of all of them, in pictures of about 10 kB.
FAMILIES, MEMBERS, OPENED = 24, 12, 120
# The most bytes that the pictures of layers in maps take together.
BYTES = 500_000
# By scheme: the letters of the tensors whose rows hold whole kernels or cells, with all taps.
WITH_TAPS = {
    "cp": "b",
    "separable": "",
    "basis": "V",
    "tucker": "G",
    "output": "V",
    "atoms": "D",
    "warehouse": "E",
    "codebook": "E",
    "lowrank": "V",
    "kerneldna": "PB",
}


def kernel_pictures(net: nn.Module, analysis: Analysis) -> dict[str, Picture]:
    """A picture of each layer in the groups, the largest group first, until they take BYTES."""
    pictures, taken = {}, 0
    for name in (name for group in analysis.groups for name in group.members):
        (picture,) = pictures_of(_numbers(running_kernel(net.get_submodule(name))))
        taken += len(picture.uri)
        if taken > BYTES:
            break
        pictures[name] = picture
    return pictures


def family_pictures(conversion: Conversion, original: nn.Module | None) -> tuple[FamilyPictures, ...]:
    """The families with the most parameters and the largest errors, in the order of the plan.

    Args:
        conversion: With the derived weights.
        original: The net before; None: only the kernels after are shown.
    """
    plan, derived = conversion.plan, derived_layers(conversion.model)
    errors = {name: error for fit in conversion.report.families or () for name, error in fit.errors.items()}
    params = {layer.name: layer.params for layer in plan.layers}
    known = [family for family in plan.families if all(name in derived for name in family.members)]

    def most(by: Mapping[str, float]) -> Callable[[Family], float]:
        return lambda family: max(by.get(name, 0.0) for name in family.members)

    kept = chosen(known, FAMILIES, lambda family: sum(params.get(name, 0) for name in family.members), most(errors))
    each = max(1, min(MEMBERS, OPENED // max(1, len(kept))))
    return tuple(
        _family(
            family,
            chosen(family.members, each, lambda name: params.get(name, 0), lambda name: errors.get(name, 0.0)),
            derived,
            conversion.model,
            original,
        )
        for family in kept
    )


def chosen(items: Sequence[T], most: int, size: Callable[[T], float], error: Callable[[T], float]) -> list[T]:
    """At most `most` items in their order: half of them the largest, the others those with the largest error."""
    places = range(len(items))
    largest = sorted(places, key=lambda place: -size(items[place]))[: most - most // 2]
    worst = [place for place in sorted(places, key=lambda place: -error(items[place])) if place not in largest]
    return [items[place] for place in sorted([*largest, *worst[: most - len(largest)]])]


def _family(
    family: Family, members: Sequence[str], derived: Mapping[str, Derived], net: nn.Module, original: nn.Module | None
) -> FamilyPictures:
    owner = derived[family.members[0]]
    return FamilyPictures(
        owner=family.members[0],
        shared=_tensors(owner.shared, family.scheme, owner.shape),
        members=tuple(_member(name, family.scheme, derived[name], net, original) for name in members),
    )


def _member(name: str, scheme: str, derived: Derived, net: nn.Module, original: nn.Module | None) -> MemberPictures:
    after = running_kernel(net.get_submodule(name))
    adapter = _tensors(derived.adapter, scheme, derived.shape)
    if original is None:
        (picture,) = pictures_of(_numbers(after))
        return MemberPictures(name, derived.shape, None, picture, None, None, adapter)
    before = running_kernel(original.get_submodule(name)).to(after.device)
    gap = after - before
    was, now, difference = pictures_of(*(_numbers(kernel) for kernel in (before, after, gap)))
    energy = float(before.square().sum())
    changed = float(gap.square().sum()) / energy if energy > 0 else None
    return MemberPictures(name, derived.shape, was, now, difference, changed, adapter)


def _tensors(tensors: nn.ParameterDict, scheme: str, shape: Shape) -> tuple[TensorPicture, ...]:
    return tuple(_tensor(letter, tensor.detach(), scheme, shape) for letter, tensor in tensors.items())


def _tensor(letter: str, tensor: Tensor, scheme: str, shape: Shape) -> TensorPicture:
    """What its values are like, and a picture of a tensor that is no list of numbers or indices."""
    numbers = tensor.float()
    values = float(numbers.min()), float(numbers.max()), float(numbers.norm())
    if not tensor.is_floating_point():
        return TensorPicture(letter, tuple(tensor.shape), values, distinct=len(tensor.unique()))
    taps = shape[2:] if letter in WITH_TAPS[scheme] else ()
    axes = ("row", "channel" if taps else "column")
    picture = pictures_of(_numbers(as_kernels(numbers, taps)), axes=axes)[0] if tensor.ndim > 1 else None
    return TensorPicture(letter, tuple(tensor.shape), values, picture=picture)


def as_kernels(tensor: Tensor, taps: Shape) -> Tensor:
    """A stored tensor as (rows, channels, *taps), or without taps as (rows, numbers)."""
    rows = tensor.flatten(1)
    return rows.view(len(rows), -1, *taps) if taps else rows


def _numbers(tensor: Tensor) -> Kernel:
    numbers: Kernel = tensor.detach().to("cpu", torch.float32).numpy()
    return numbers
