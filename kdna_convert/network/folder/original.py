"""The net that a conversion was made from, built again by its name, or from the module that the caller passed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import nn

from ...core.errors import CheckpointError, FolderError, KdnaError
from ...core.specs import ModelRef
from ...inputs.models import Loaded, choices, fit_original, load_model, state_digest, unwrapped_copy
from .conversion import Conversion
from .rebuild import rebuild


def original_of(conversion: Conversion, checkpoint: str | None = None) -> Loaded:
    """The original with its weights, from `checkpoint` where one is given.

    Raises:
        FolderError: KD607 (it cannot be rebuilt, or has changed), KD611 (the conversion was read from a folder, and
            building what it names needs the caller's word).
    """
    ref, origin = conversion.plan.model, conversion.origin
    ref = replace(ref, checkpoint=checkpoint) if checkpoint else ref
    if origin.module is None and origin.refusal is not None:
        raise origin.refusal
    try:
        loaded = _named(conversion, ref) if origin.module is None else _given(origin.module, conversion, ref)
    except KdnaError as error:
        raise FolderError("KD607", f"the original {ref.name} cannot be rebuilt: {error.message}") from error
    if loaded.ref.sha256 != ref.sha256:
        where = f"{ref.name}, {ref.checkpoint}" if ref.checkpoint else ref.name
        way_out = "pass checkpoint=, or model= with the original's weights"
        raise FolderError(
            "KD607", f"the original ({where}) has changed since the conversion: its tensors' sha256 differs; {way_out}"
        )
    return loaded


def _named(conversion: Conversion, ref: ModelRef) -> Loaded:
    permit, folder = conversion.origin.permit, conversion.origin.folder
    if permit is not None and permit.limit is not None and folder is not None:
        rebuild(permit, folder)  # within its limit, before it gets weights
    return _the_same(ref) if ref.checkpoint else load_model(ref.name)


def _the_same(ref: ModelRef) -> Loaded:
    """The net with those weights of its checkpoint that have the recorded digest, else with the usual ones."""
    checkpoint = ref.checkpoint or ""
    for choice in (checkpoint, *choices(checkpoint)):
        with suppress(CheckpointError):
            loaded = load_model(ref.name, checkpoint=choice)
            if loaded.ref.sha256 == ref.sha256:
                return loaded
    return load_model(ref.name, checkpoint=checkpoint)


def _given(module: nn.Module, conversion: Conversion, ref: ModelRef) -> Loaded:
    """A copy of the module, with the weights that it has if they are the original's, else those of the checkpoint."""
    net = unwrapped_copy(module).cpu().float().eval()
    if ref.checkpoint is not None and state_digest(net) != ref.sha256 and Path(ref.checkpoint).is_file():
        fit_original(net, ref.checkpoint, ref.sha256)
    return Loaded(net, replace(ref, sha256=state_digest(net)), conversion.data)
