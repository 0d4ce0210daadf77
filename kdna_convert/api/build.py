"""The verb `build`: the cost of a layout (layouts.py) compared with the plain net, and fresh weights for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from torch import nn

from ..core.errors import FolderError, ModelError
from ..core.filesize import file_size
from ..core.specs import DataConfig, TensorSpec, Totals
from ..core.tensorfile import save_tensors
from ..network.stored import DTYPES
from ..network.totals import DENSE_METADATA, totals
from .layouts import LAYOUTS, Blueprint


@dataclass(frozen=True)
class Built:
    """What `kdna build` prints. `model` is the layout as MODEL, `plain` timm's name of the net that `before` counts."""

    name: str
    model: str
    plain: str
    before: Totals
    after: Totals


def build(name: str) -> Built:
    """A layout's parameters, bytes and MACs, and those of the plain net, for 224 x 224 images. No weights are drawn.

    Raises ModelError KD301 for a name that is none of LAYOUTS.
    """
    blueprint = _blueprint(name)
    with torch.device("meta"):
        plain, model = timm.create_model(blueprint.plain), blueprint.factory()
        example = torch.empty(1, *DataConfig().input_size)
        before, after = totals(plain, example), totals(model, example)
    specs = [TensorSpec(key, tuple(tensor.shape), DTYPES[tensor.dtype]) for key, tensor in model.state_dict().items()]
    return Built(name, blueprint.model, blueprint.plain, before, replace(after, bytes=file_size(specs, DENSE_METADATA)))


def fresh(name: str, seed: int = 0) -> nn.Module:
    """A layout with the weights that its factory draws from this seed. Raises what `build` raises."""
    blueprint = _blueprint(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return blueprint.factory()


def write_fresh(name: str, path: str | Path, seed: int = 0) -> None:
    """Write the state dict of a fresh layout: a checkpoint for the factory, replacing what is there.

    Raises ModelError KD301 (no such layout), FolderError KD604 (cannot be written).
    """
    state = fresh(name, seed).state_dict()
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, state, DENSE_METADATA)
    except OSError as error:
        reason = error.strerror or error
        raise FolderError("KD604", f"{path} could not be written: {reason}; nothing was left behind") from error


def _blueprint(name: str) -> Blueprint:
    if name not in LAYOUTS:
        close = get_close_matches(name, LAYOUTS, n=1)
        near = f"; did you mean {close[0]}?" if close else ""
        raise ModelError("KD301", f"kdna has no layout {name!r}, it has {', '.join(LAYOUTS)}{near}")
    return LAYOUTS[name]
