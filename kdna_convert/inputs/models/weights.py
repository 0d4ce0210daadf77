"""State dicts: read from a file without executing it, fitted to a model strictly, checked, and named by a digest."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...core.errors import CheckpointError, NumericsError
from ...core.tensorfile import load_tensors

# Where training scripts put the weights; a moving average is what its owner would ship, so it comes first.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_LISTED = 8


def read_state_dict(path: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a torch one (.pth, .pt, .th, .bin), by their names in the model.

    Containers (`state_dict`, `model`, `model_ema`, `state_dict_ema`) are opened, the prefixes that DDP
    and torch.compile add are removed. Raises CheckpointError KD304 when the file is missing, damaged, holds no tensors
    or would have to run code, KD303 when two of its keys name the same tensor.
    """
    tensors = _read(path)
    named: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = bare_name(key)
        if name in named:
            raise CheckpointError("KD303", f"{path}: {key} and another key both name {name}; keep one of them")
        named[name] = tensor
    return named


def bare_name(key: str) -> str:
    """A state-dict key without what wrappers add: `_orig_mod.` (torch.compile), and `module.` (DDP, EMA) in front."""
    key = key.replace("_orig_mod.", "")
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], path: str) -> nn.Module:
    """Loads `state` into `model`, in place and strictly, and returns the model. `path` is only named in the error.

    Raises CheckpointError KD303, which lists the first missing, unexpected and misshapen keys of each kind.
    """
    own = model.state_dict()
    real_name = {bare_name(key): key for key in own}  # a model may itself have a child called `module`
    state = {real_name.get(key, key): tensor for key, tensor in state.items()}
    misshapen = [
        f"{key} {tuple(tensor.shape)} instead of {tuple(own[key].shape)}"
        for key, tensor in state.items()
        if isinstance(own.get(key), Tensor) and not is_lazy(own[key]) and not _fits(tensor, own[key])
    ]
    if misshapen:  # load_state_dict would stop at these before it has looked for missing keys
        missing, unexpected = [key for key in own if key not in state], [key for key in state if key not in own]
    else:
        try:
            missing, unexpected = model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise CheckpointError("KD303", f"{path} does not fit the model: {cause(error)}") from error
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    wrong = "; ".join(_listed(kind, keys) for kind, keys in kinds if keys)
    if wrong:
        way_out = "give the model the arguments it was trained with, as in NAME(num_classes=10)"
        raise CheckpointError("KD303", f"{path} does not fit the model: {wrong}; {way_out}")
    return model


def check_finite(model: nn.Module) -> None:
    """Raises NumericsError KD701 naming the first tensor with NaN or infinity. A buffer may hold -inf: masks do."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or is_lazy(tensor) or not tensor.is_floating_point():
            continue
        broken = ~tensor.isfinite() if name in parameters else tensor.isnan() | tensor.isposinf()
        count = int(broken.sum())
        if count:
            way_out = "the checkpoint comes from a diverged run; use an earlier one"
            raise NumericsError("KD701", f"{name}: {count} of {tensor.numel()} values are NaN or infinite; {way_out}")


def state_digest(model: nn.Module) -> str:
    """The sha256 (hex) of a model's tensors: names sorted, each with its dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor) and not is_lazy(tensor):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def cause(error: BaseException) -> str:
    """The first line of an exception, with its type, for a one-line message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:240].removesuffix(": ")


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise CheckpointError("KD304", f"{path}: no such file")
    try:
        content = load_tensors(path)[0] if path.endswith(".safetensors") else _torch_load(path)
    except CheckpointError:
        raise
    except Exception as error:  # a hostile file can make a parser raise anything; that is the file's fault, not ours
        raise CheckpointError("KD304", f"{path} cannot be read as weights{_why(path, error)}") from error
    while isinstance(content, Mapping):
        held = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if held is None:
            break
        content = held
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError("KD304", f"{path} holds no state dict but {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            way_out = f"put the tensors under one of the keys {', '.join(CONTAINERS)}"
            raise CheckpointError("KD304", f"{path}: {key!r} is not a tensor but {type(value).__name__}; {way_out}")
    return dict(content)


def _torch_load(path: str) -> Any:
    """weights_only, always. argparse.Namespace is plain data: timm's training script stores its arguments as one."""
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols: a file is read, or refused in our own words
        return torch.load(path, map_location="cpu", weights_only=True)


def _why(path: str, error: Exception) -> str:
    if not isinstance(error, pickle.UnpicklingError):
        return f" ({cause(error)})"
    try:
        named = ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(path)[:_LISTED])
    except Exception:  # noqa: BLE001 - not a zip archive, or a damaged one: then the names are not to be had
        named = ""
    asked = f" ({named})" if named else ""
    return f": it asks to run code{asked} or is damaged; nothing was run. Save the state dict alone and try again"


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Equal shapes; a scalar (a BatchNorm's counter) may also come as a list of one, as load_state_dict allows."""
    return tensor.shape == own.shape or (own.dim() == 0 and tensor.shape == (1,))


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {kind}: {', '.join(keys[:_LISTED])}{more}"


def _bytes(tensor: Tensor) -> Any:
    plain = (tensor.int_repr() if tensor.is_quantized else tensor).detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data
