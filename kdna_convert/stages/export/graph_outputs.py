"""The tensors that a net returns, by the names that they get in a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from ...core.errors import ModelError, cause
from ...inputs.data import takes_packed
from ...tasks import is_detection


def graph_outputs(net: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """What a net in eval mode returns for an example input, before the graph is written.

    A dict's tensors have its keys as names, those of a list its positions.

    Raises:
        ModelError: KD312 for a net whose graph would not run on other images than the example.
    """
    returned = outputs_of(net, example)
    if takes_packed(net):
        raise _refused("it takes several inputs")
    if is_detection(returned):
        raise _refused("the number of boxes that a detector returns depends on the image")
    return named_tensors(returned)


def outputs_of(net: nn.Module, inputs: Tensor) -> object:
    """What the net returns. Raises ModelError KD312 if it does not run."""
    try:
        with torch.no_grad():
            return net(inputs)
    except Exception as error:  # the net is user code and may raise anything
        raise _refused(f"it does not run on an input of shape {tuple(inputs.shape)}: {cause(error)}") from error


def named_tensors(returned: object) -> dict[str, Tensor]:
    """The tensors of what a net returned, by name, in the order of the graph's outputs."""
    if isinstance(returned, Tensor):
        return {"logits" if returned.ndim == 2 else "output": returned}
    pairs = tree_flatten_with_path(returned)[0]
    return {_name([*path]): leaf for path, leaf in pairs if isinstance(leaf, Tensor)}


def _name(path: list[object]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    return ".".join(["output", *keys] if keys[0].isdigit() else keys)


def _refused(why: str) -> ModelError:
    return ModelError("KD312", f"the net has no graph for other images: {why}; pass --to merged for its weights")
