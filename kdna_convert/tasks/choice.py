"""Choose the task of a net from what it returns. What cannot be told apart is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..core.errors import ModelError
from .detect import is_detection
from .structure import described, tensors_in


@dataclass(frozen=True)
class TaskChoice:
    """The name of a task, and why it was chosen."""

    name: str
    why: str


def choose(net: nn.Module, inputs: Tensor, returned: object) -> TaskChoice:
    """The task of a net that returned this for a batch of inputs.

    Raises:
        ModelError: KD308 if it returned no tensor, KD313 if tasks cannot be told apart.
    """
    if is_detection(returned):
        return TaskChoice("detect", "the net returns boxes, labels and scores")
    if isinstance(returned, Mapping):
        for key in ("logits", "out"):
            if isinstance(returned.get(key), Tensor):
                own = _of_tensor(net, inputs, returned[key])
                return TaskChoice(own.name, f"by {key!r} of the net's outputs, {own.why}")
    tensors = tensors_in(returned)
    if not tensors:
        raise ModelError("KD308", f"the net returns {described(returned)}, without a tensor of numbers; pass --outputs")
    if len(tensors) > 1:
        return TaskChoice("raw", f"the net returns {len(tensors)} tensors")
    return _of_tensor(net, inputs, tensors[0])


def _of_tensor(net: nn.Module, inputs: Tensor, output: Tensor) -> TaskChoice:
    shape, images = tuple(output.shape), len(inputs)
    if output.ndim == 0 or len(output) != images:
        raise ModelError("KD308", f"the net returns {described(output)} for {images} images, not a row for each")
    if output.ndim == 1 or output[0].numel() == 1:
        return TaskChoice("regress", "one number per image (for a logit: binary)")
    if output.ndim == 2 and _classes(net) == 0:
        return TaskChoice("embed", "the net has no classifier")
    if output[0].numel() == shape[1]:
        return TaskChoice("classify", f"{shape[1]:,} outputs per image")
    if output.ndim == 4 and inputs.ndim == 4:
        return _of_map(tuple(inputs.shape[1:]), shape[1:])
    raise _asked(shape, "sequence (classes on axis 1) or raw (boxes, waves, other numbers)", "sequence", "raw")


def _of_map(own: tuple[int, ...], shape: tuple[int, ...]) -> TaskChoice:
    """The task of a net that turns inputs (channels, height, width) into this shape."""
    factors = {to / side for side, to in zip(own[1:], shape[1:], strict=True)}
    whole = len(factors) == 1 and min(factors) >= 1 and min(factors).is_integer()
    image = shape[0] == own[0]
    if whole and image and min(factors) > 1:
        return TaskChoice("image", f"images of {min(factors):.0f} times the size")
    if whole and not image and shape[0] > 4 and min(factors) == 1:
        return TaskChoice("segment", f"{shape[0]} outputs per pixel")
    if shape[0] == 1:
        between = "image (an image in 0..1), binary (the logit of a mask) or regress (depth, other values)"
        raise _asked((1, *shape), between, "image", "binary", "regress")
    if image or shape[0] <= 4:
        raise _asked((1, *shape), "image (an image in 0..1) or segment (classes)", "image", "segment")
    raise _asked((1, *shape), "segment (classes) or raw (features)", "segment", "raw")


def _asked(shape: tuple[int, ...], between: str, *names: str) -> ModelError:
    flags = [f"--task {name}" for name in names]
    way_out = f"{', '.join(flags[:-1])} or {flags[-1]}"
    text = f"the net returns a tensor of shape {shape}, which may be {between}; pass {way_out}"
    return ModelError("KD313", text)


def _classes(net: nn.Module) -> int | None:
    """What timm's nets say of their classes."""
    own: Any = getattr(net, "num_classes", None)
    return own if isinstance(own, int) else None
