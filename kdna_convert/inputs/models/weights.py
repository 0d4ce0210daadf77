"""State dicts: read from a file without executing it, loaded strictly, checked and hashed."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import ObserverBase
from torch.nn.parameter import is_lazy

from ...core.errors import CheckpointError, NumericsError, cause
from ...core.tensorfile import load_tensors
from ...core.versions import with_versions
from .containers import ALLOWED, CheckpointFile, inner_states, opened

_LISTED = 8


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a torch file (.pth, .pt, .th, .bin), by their names in the model.

    Containers (containers.py) are opened. The prefixes that DDP and torch.compile add are removed.

    Args:
        path: The file, or a CheckpointFile, which says which of its weights are meant.

    Raises:
        CheckpointError: KD304 (missing, damaged, without tensors, or asking to run code), KD303 (two keys name the same
            tensor).
    """
    return read_weights(path)[0]


def read_weights(path: str) -> tuple[dict[str, Tensor], str]:
    """The same, and the key under which the tensors are in the file, empty if they are at its top."""
    tensors, key = opened(_content(path), path)
    named: dict[str, Tensor] = {}
    for own, tensor in tensors.items():
        name = bare_name(own)
        if name in named:
            raise CheckpointError("KD303", f"{path}: {own} and another key both name {name}; keep one of them")
        named[name] = tensor
    return named, key


def choices(path: str) -> Iterator[CheckpointFile]:
    """Every set of weights in the file: by its key, and by the first part of its names."""
    for key, tensors in inner_states(_content(path)):
        yield CheckpointFile(path, key or None)
        for first in dict.fromkeys(bare_name(name).partition(".")[0] for name in tensors):
            yield CheckpointFile(path, key or None, first)


def bare_name(key: str) -> str:
    """A state-dict key without the prefixes of wrappers: `_orig_mod.` (torch.compile) and `module.` (DDP, EMA)."""
    key = key.replace("_orig_mod.", "")
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def prefix_of(model: nn.Module, state: Mapping[str, Tensor], path: str) -> str:
    """What stands before the model's names in `state`: `model.` in a Lightning module's, mostly nothing.

    Raises:
        CheckpointError: KD303 if the weights of several nets fit.
    """
    own = [bare_name(key) for key in model.state_dict()]
    if not own or any(key in state for key in own):
        return ""
    before = dict.fromkeys(key.removesuffix(own[0]) for key in state if key.endswith(f".{own[0]}"))
    prefixes = [prefix for prefix in before if all(f"{prefix}{key}" in state for key in own)]
    if len(prefixes) > 1:
        which = ", ".join(prefixes[:_LISTED])
        raise CheckpointError("KD303", f"{path} has several weights that fit: {which}; pass --checkpoint-prefix")
    return prefixes[0] if prefixes else ""


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], path: str) -> nn.Module:
    """Load `state` into `model`, in place and strictly, and return the model. `path` is the file, for errors.

    Only the keys after the prefix count, if there is one (`prefix_of`, or the CheckpointFile's).

    Raises:
        CheckpointError: KD303, with the first missing, unexpected and misshapen keys.
    """
    prefix = getattr(path, "prefix", None) or prefix_of(model, state, path)
    if prefix:
        state = after(prefix, state, path)
    own = model.state_dict()
    real_name = {bare_name(key): key for key in own}  # a model may itself have a child called `module`
    state = {real_name.get(key, key): tensor for key, tensor in state.items()}
    misshapen = [
        f"{key} {tuple(tensor.shape)} instead of {tuple(own[key].shape)}"
        for key, tensor in state.items()
        if isinstance(own.get(key), Tensor) and not is_lazy(own[key]) and not _fits(tensor, own[key])
    ]
    if misshapen:  # load_state_dict would stop here without looking for missing keys
        missing, unexpected = [key for key in own if key not in state], [key for key in state if key not in own]
    else:
        try:
            missing, unexpected = model.load_state_dict(with_versions(state, model), strict=False)
        except Exception as error:  # a module may convert old tensors by code of its own, which may raise anything
            raise CheckpointError("KD303", f"{path} does not fit the model: {cause(error)}") from error
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    wrong = "; ".join(_listed(kind, keys) for kind, keys in kinds if keys)
    if wrong:
        way_out = "give the model the arguments it was trained with, as in NAME(num_classes=10)"
        raise CheckpointError("KD303", f"{path} does not fit the model: {wrong}; {way_out}")
    return model


def after(prefix: str, state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it. Raises CheckpointError KD303 if there are none."""
    start = prefix if prefix.endswith(".") else f"{prefix}."
    own = {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}
    if not own:
        first = ", ".join(list(dict.fromkeys(key.partition(".")[0] for key in state))[:_LISTED])
        raise CheckpointError("KD303", f"{path}: no name begins with {start}; they begin with {first}")
    return own


def fit_original(model: nn.Module, path: str, sha256: str) -> nn.Module:
    """Load those weights of the file that have this digest; if none has it, those that `fit_weights` takes."""
    for choice in choices(path):
        with suppress(CheckpointError):
            fit_weights(model, read_state_dict(choice), choice)
            if state_digest(model) == sha256:
                return model
    return fit_weights(model, read_state_dict(path), path)


def check_finite(model: nn.Module) -> None:
    """Raise NumericsError KD701 for the first tensor with NaN or infinity.

    A buffer may hold -inf, as masks do. One of a quantization observer that has seen nothing holds inf too.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    observers = {name for name, module in model.named_modules() if isinstance(module, ObserverBase)}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or is_lazy(tensor) or not tensor.is_floating_point():
            continue
        if name in parameters:
            broken = ~tensor.isfinite()
        elif name.rpartition(".")[0] in observers:
            broken = tensor.isnan()
        else:
            broken = tensor.isnan() | tensor.isposinf()
        count = int(broken.sum())
        if count:
            way_out = "the training diverged; use an earlier checkpoint"
            raise NumericsError("KD701", f"{name}: {count} of {tensor.numel()} values are NaN or infinite; {way_out}")


def state_digest(model: nn.Module) -> str:
    """The sha256 (hex) of a model's tensors: by sorted names, each with its dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor) and not is_lazy(tensor):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _content(path: str) -> Any:
    if not Path(path).is_file():
        raise CheckpointError("KD304", f"{path}: no such file")
    try:
        return load_tensors(path)[0] if path.endswith(".safetensors") else _torch_load(path)
    except CheckpointError:
        raise
    except Exception as error:  # a malicious file can make a parser raise anything
        raise CheckpointError("KD304", f"{path} cannot be read as weights{_why(path, error)}") from error


def _torch_load(path: str) -> Any:
    """Always weights_only, with the plain data of training scripts that containers.py allows."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > Path(path).stat().st_size:  # torch stores its entries as they are
            raise CheckpointError(
                "KD304", f"{path} unpacks to {unpacked:,} bytes, more than it has; save it by torch.save"
            )
    with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols
        return torch.load(path, map_location="cpu", weights_only=True)


def _why(path: str, error: Exception) -> str:
    if not isinstance(error, pickle.UnpicklingError):
        return f" ({cause(error)})"
    try:
        named = ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(path)[:_LISTED])
    except Exception:  # noqa: BLE001 - a file that is no whole zip archive has no names to read
        named = ""
    names = f" ({named})" if named else ""
    return f": it asks to run code{names} or is damaged; nothing was run. Save the state dict alone and try again"


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Equal shapes; a scalar (a BatchNorm's counter) may also be a list of one, as load_state_dict allows."""
    return tensor.shape == own.shape or (own.dim() == 0 and tensor.shape == (1,))


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {kind}: {', '.join(keys[:_LISTED])}{more}"


def _bytes(tensor: Tensor) -> Any:
    # A clone: numpy() forbids that the storage is resized later, which quantization observers do.
    plain = (tensor.int_repr() if tensor.is_quantized else tensor).detach().cpu().contiguous().clone()
    return plain.reshape(-1).view(torch.uint8).numpy().data
