"""MODEL: a net by name, with its weights and the input it takes.

names.py parses the name, building.py builds the net, weights.py reads and loads state dicts, inputs.py finds the input,
listing.py lists the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...core.specs import DataConfig, ModelRef
from .building import build
from .containers import CheckpointFile, remark
from .inputs import carried_cfg, data_config, declared_config, example_input, input_problem, override, resized
from .names import ModelName, factory_note, parse_name
from .unwrapping import require_usable, unwrapped_copy
from .user_functions import user_function
from .weights import (
    check_finite,
    choices,
    fit_original,
    fit_weights,
    prefix_of,
    read_state_dict,
    read_weights,
    state_digest,
)

__all__ = [
    "CheckpointFile",
    "Loaded",
    "ModelName",
    "carried_cfg",
    "check_finite",
    "choices",
    "declared_config",
    "example_input",
    "factory_note",
    "fit_original",
    "fit_weights",
    "input_problem",
    "load_model",
    "other_dtypes",
    "override",
    "parse_name",
    "read_state_dict",
    "require_usable",
    "resized",
    "state_digest",
    "unwrapped_copy",
    "user_function",
]


@dataclass(frozen=True)
class Loaded:
    """A model on the CPU, float32, in eval mode. `ref` names its source, `data` is its input.

    `taken` says which weights of its checkpoint it has, None if there was no choice. `dtypes` are the numbers of its
    source that were not float32, by the name of the tensor.
    """

    model: nn.Module
    ref: ModelRef
    data: DataConfig
    taken: str | None = None
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)


def other_dtypes(model: nn.Module) -> dict[str, torch.dtype]:
    """The dtypes of a net's floating-point tensors that are not float32, by name."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    return {
        name: tensor.dtype
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }


def load_model(name: str, *, checkpoint: str | None = None, pretrained: bool = True) -> Loaded:
    """Build a MODEL with pretrained weights, those of a checkpoint, or random ones.

    Args:
        name: The MODEL, see names.py. `NAME(pretrained=False)` asks for random weights, the same in every run.
        checkpoint: A file of weights, whose keys and shapes must match. Nothing in it is executed. A CheckpointFile
            says which of several weights.
        pretrained: False builds the net with random weights.

    Raises:
        ModelError: KD301 (no such model), KD302 (it cannot be built), KD305 (no pretrained weights).
        CheckpointError: KD303 (keys or shapes differ), KD304 (the file cannot be read).
        NumericsError: KD701 (a weight is NaN or infinite).
    """
    parsed = parse_name(name)
    state, key = (None, "") if checkpoint is None else read_weights(checkpoint)
    model = build(parsed, pretrained and state is None)
    require_usable(model, name)
    taken = None
    if checkpoint is not None and state is not None:
        prefix = getattr(checkpoint, "prefix", None) or prefix_of(model, state, checkpoint)
        taken = remark(checkpoint, key, prefix)
        fit_weights(model, state, checkpoint)
    dtypes = other_dtypes(model)
    model = model.cpu().float().eval()
    check_finite(model)
    ref = ModelRef(name, None if checkpoint is None else str(checkpoint), state_digest(model))
    return Loaded(model, ref, data_config(parsed, model), taken, dtypes)
