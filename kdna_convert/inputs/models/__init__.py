"""Models by name: the only door to timm and torchvision. A name, perhaps with a checkpoint, becomes a Loaded.

names.py reads the grammar, building.py builds, weights.py reads and fits state dicts, inputs.py says what images
must become.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...core.specs import DataConfig, ModelRef
from .building import build
from .inputs import carried_cfg, data_config, example_input, override
from .names import ModelName, parse_name
from .weights import check_finite, fit_weights, read_state_dict, state_digest

__all__ = [
    "Loaded",
    "ModelName",
    "carried_cfg",
    "check_finite",
    "example_input",
    "fit_weights",
    "load_model",
    "override",
    "parse_name",
    "read_state_dict",
    "state_digest",
]


@dataclass(frozen=True)
class Loaded:
    """A model on the CPU, float32, in eval mode. `ref` can build it again, `data` is its input."""

    model: nn.Module
    ref: ModelRef
    data: DataConfig


def load_model(name: str, *, checkpoint: str | None = None, pretrained: bool = True) -> Loaded:
    """MODEL (see names.py) with its author's weights, with those of `checkpoint` (strictly), or with random ones.

    Random weights, by `pretrained=False` or `NAME(pretrained=False)`, are the same for the same name each time. Raises
    ModelError KD301 (no such model), KD302 (cannot be built), KD305 (no pretrained weights), CheckpointError KD303
    (keys or shapes differ), KD304 (unreadable; nothing in it is ever executed), NumericsError KD701 (NaN or infinity).
    """
    parsed = parse_name(name)
    state = None if checkpoint is None else read_state_dict(checkpoint)
    model = build(parsed, pretrained and state is None)
    if checkpoint is not None and state is not None:
        fit_weights(model, state, checkpoint)
    model = model.cpu().float().eval()
    check_finite(model)
    return Loaded(model, ModelRef(name, checkpoint, state_digest(model)), data_config(parsed, model))
