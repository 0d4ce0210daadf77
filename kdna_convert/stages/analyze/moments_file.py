"""Moments in a safetensors file, with a fingerprint of what they were made from."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from ...core.errors import CheckpointError, FolderError
from ...core.fingerprint import Fingerprint
from ...core.linalg import Kronecker
from ...core.tensorfile import load_tensors, save_tensors
from ...core.triangle import Triangle
from .moments import LayerMoments, Moments

_FORMAT = "kdna-moments-3"


def save_moments(path: str | Path, moments: Moments, made_from: Fingerprint) -> None:
    """Write moments to one safetensors file.

    Args:
        path: The file.
        moments: The moments.
        made_from: The fingerprint of the model, data and settings.

    Raises:
        FolderError: KD604 if the file cannot be written; an older file is then intact.
    """
    tensors: dict[str, Tensor] = {}
    rows: dict[str, dict[str, int]] = {}
    for name, item in moments.items():
        rows[name] = {"count": item.count}
        tensors |= {f"{name}/mean": item.mean, f"{name}/felt": item.gradient}
        if isinstance(item.packed, Kronecker):
            tensors |= {f"{name}/channels": item.packed.channels_cc, f"{name}/taps": item.packed.taps_tt}
        else:
            tensors[f"{name}/second"] = item.packed.values
        if item.gram_ee is not None:
            tensors[f"{name}/gram"] = item.gram_ee
    try:
        about = {"format": _FORMAT, "fingerprint": made_from.whole, "parts": json.dumps(dict(made_from.parts))}
        save_tensors(path, tensors, {**about, "layers": json.dumps(rows)})
    except OSError as error:
        raise FolderError("KD604", f"{path}: the moments cannot be written: {error}") from error


def load_moments(path: str | Path, made_from: Fingerprint) -> Moments:
    """Read the file of `save_moments`.

    Raises:
        CheckpointError: KD304 if it is no such file.
        PlanError: KD505 if it was made from something else.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != _FORMAT:
        raise CheckpointError("KD304", f"{path}: no moments of this version of kdna; delete the file, or name another")
    made_from.require(path, metadata.get("fingerprint"), json.loads(metadata.get("parts", "{}")))
    moments: Moments = {}
    for name, row in json.loads(metadata["layers"]).items():
        packed: Triangle | Kronecker
        if f"{name}/second" in tensors:
            packed = Triangle(tensors[f"{name}/second"])
        else:
            packed = Kronecker(tensors[f"{name}/channels"], tensors[f"{name}/taps"])
        gram = tensors.get(f"{name}/gram")
        mean, gradient = tensors[f"{name}/mean"], tensors[f"{name}/felt"]
        moments[name] = LayerMoments(packed, mean, row["count"], gradient, gram)
    return moments
