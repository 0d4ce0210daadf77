"""The tensors in what a net returns: a tensor, or mappings, sequences and dataclasses of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass

from torch import Tensor

from ..core.errors import ModelError


def tensors_in(returned: object) -> list[Tensor]:
    """The floating-point tensors, in order, at any depth."""
    if isinstance(returned, Tensor):
        return [returned] if returned.is_floating_point() else []
    if isinstance(returned, Mapping):
        return [tensor for value in returned.values() for tensor in tensors_in(value)]
    if isinstance(returned, Sequence) and not isinstance(returned, str | bytes):
        return [tensor for value in returned for tensor in tensors_in(value)]
    if is_dataclass(returned) and not isinstance(returned, type):
        return [tensor for own in fields(returned) for tensor in tensors_in(getattr(returned, own.name))]
    return []


def row_per_image(tensors: Sequence[Tensor], returned: object, images: int) -> tuple[Tensor, ...]:
    """The tensors with a row per image. Raises ModelError KD308 where there is none."""
    rows = tuple(tensor for tensor in tensors if tensor.ndim > 0 and len(tensor) == images)
    if not rows:
        raise ModelError("KD308", f"the net returns {described(returned)}, and no tensor with a row for every image")
    return rows


def wrong_outputs(task: str, needed: str, returned: object) -> ModelError:
    """The error KD308 for a net that does not return what its task needs."""
    return ModelError(
        "KD308", f"{task} needs {needed}, and the net returns {described(returned)}; choose another --task"
    )


def described(returned: object) -> str:
    """What a net returned, in a few words: a tensor (1, 84, 8400), a list of 3, a dict of boxes, labels, scores."""
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    if isinstance(returned, Mapping):
        return f"a {type(returned).__name__} of {', '.join(map(str, returned))}"
    if isinstance(returned, Sequence) and not isinstance(returned, str | bytes):
        return f"a {type(returned).__name__} of {len(returned)}"
    return f"a {type(returned).__name__}"
