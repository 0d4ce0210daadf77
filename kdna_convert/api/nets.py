"""MODEL in its forms: a name, a converted folder, or a module; its number of classes, and its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import CheckpointError, DataError, FolderError, KdnaError, ModelError, cause
from ..core.specs import DataConfig, ModelRef, Shape
from ..inputs.data import Images, Inputs, Reading, accept_packed, check_classes, input_shape
from ..inputs.models import (
    CheckpointFile,
    Loaded,
    carried_cfg,
    declared_config,
    example_input,
    load_model,
    other_dtypes,
    override,
    require_usable,
    resized,
    state_digest,
    unwrapped_copy,
)
from ..network.folder import Conversion, open_folder, original_of
from ..network.inference import device_of, evaluating
from ..tasks import Task, run
from .keywords import FolderOptions

Model = str | Path | nn.Module


def checkpoint_of(options: Mapping[str, Any]) -> str | None:
    """The checkpoint of a verb's options, with the key and the prefix of the weights that are meant."""
    path, key, prefix = (options.get(name) for name in ("checkpoint", "checkpoint_key", "checkpoint_prefix"))
    if path is None and (key or prefix):
        raise CheckpointError("KD304", "checkpoint_key and checkpoint_prefix choose weights of a checkpoint; pass one")
    return CheckpointFile(str(path), key, prefix) if key or prefix else path


def load_any(model: Model, checkpoint: str | None, inputs: Mapping[str, Any] | None) -> Loaded:
    """The net that MODEL names, or a copy of the module; `inputs` are fields of DataConfig that override its own."""
    if isinstance(model, nn.Module):
        name = f"{type(model).__module__}:{type(model).__qualname__}"
        require_usable(model, name)
        copied = unwrapped_copy(model)
        dtypes, own = other_dtypes(copied), copied.cpu().float().eval()  # as load_model gives it
        loaded = Loaded(own, ModelRef(name, None, state_digest(own)), declared_config(own), dtypes=dtypes)
    else:
        loaded = load_model(str(model), checkpoint=checkpoint)
    return replace(loaded, data=override(loaded.data, **inputs)) if inputs else loaded


def conversion_of(model: Any, trust_code: bool = False, module: nn.Module | None = None) -> Conversion | None:
    """A conversion, or the one in a folder; None for a model that is neither. The others are those of `opened`."""
    if isinstance(model, Conversion) or (isinstance(model, str | Path) and Path(model).is_dir()):
        return opened(model, {"trust_code": trust_code, "model": module})
    return None


def opened(folder: str | Path | Conversion, options: FolderOptions) -> Conversion:
    """A conversion, or the one in a folder. A module in the options is copied, and takes the place of the original."""
    module = options.get("model")
    if isinstance(folder, Conversion):
        conversion = folder
    else:
        net = None if module is None else unwrapped_copy(module)
        conversion = open_folder(folder, model=net, trust_code=options.get("trust_code", False))
    return conversion if module is None else replace(conversion, origin=replace(conversion.origin, module=module))


def known_original(conversion: Conversion) -> nn.Module | None:
    """The net that a conversion was made from; None where its weights or its architecture are not available."""
    try:
        return original_of(conversion).model
    except FolderError:
        return None


def original_from(conversion: Conversion, checkpoint: str | None) -> nn.Module | None:
    """The same, its weights from `checkpoint` where one is given. An error is then raised."""
    try:
        return original_of(conversion, checkpoint).model
    except KdnaError:
        if checkpoint:
            raise
        return None


def classes_of(net: nn.Module, config: DataConfig, task: Task) -> int:
    """The number of classes, or of other numbers per position, that the net returns by this task."""
    with evaluating(net):
        return int(run(task, net, example_input(config).to(device_of(net)))[0].shape[1])


def check_labels(images: Images, net: nn.Module, config: DataConfig, task: Task) -> None:
    """Raise DataError KD402 for class folders whose number is not that of the net's classes. Others have no check."""
    if images.labeled and task.name == "classify":
        check_classes(images, classes_of(net, config, task))


def task_batches(images: Images, batch: int, task: Task) -> Reading | Inputs:
    """The images in batches, with labels if they are of the task: class folders are labels of classify alone."""
    reading = Reading(images, batch)
    return Inputs(reading) if images.classes and task.name != "classify" else reading


def require_inputs(net: nn.Module, images: Images, *others: nn.Module | None) -> None:
    """Raise DataError KD406 if the net fails on the first of the tensors in DATA. Image files are not read for it.

    This net and the others take several inputs packed from then on, where DATA gives several.
    """
    shape = input_shape(images)
    if shape is None:
        return
    if images.packing is not None:
        for each in (net, *others):
            if each is not None:
                accept_packed(each, images.packing)
    first = images.source.sample(images.positions[0])[0]  # type: ignore[union-attr]  # no stream has a shape
    try:
        with evaluating(net):
            net(first[None].to(device_of(net)))
    except Exception as error:
        raise misfit(net, shape, cause(error)) from error


def misfit(net: nn.Module, shape: Shape, reason: str) -> DataError:
    """The error KD406 for a net that fails on tensors of this shape."""
    own = carried_cfg(net).get("input_size")
    takes = "which the net does not take" if own is None else f"and the net takes {tuple(own)}"
    return DataError("KD406", f"DATA gives inputs of shape {shape}, {takes}: {reason}")


def sized(loaded: Loaded, data: Any, options: Mapping[str, Any]) -> Loaded:
    """The net with the input size of the tensors in DATA, unless the options set one."""
    shape = input_shape(data) if isinstance(data, Images) else None
    if isinstance(data, Images) and data.packing is not None:
        accept_packed(loaded.model, data.packing)
    if shape is None or "input_size" in (options.get("inputs") or {}):
        return loaded
    return replace(loaded, data=resized(loaded.data, shape))


def device_of_name(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:1 ... Raises ModelError KD309 for one that is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError("KD309", f"device {name}: {reason}; --device auto takes what there is") from None
