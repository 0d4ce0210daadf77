"""The net that a folder was made from, built again from the folder's record."""

from __future__ import annotations

from ...core.errors import FolderError, KdnaError
from ...core.specs import ModelRef
from ...inputs.models import Loaded, load_model


def original_of(ref: ModelRef) -> Loaded:
    """The original with its weights. Raises FolderError KD607 if it cannot be rebuilt or has changed."""
    try:
        loaded = load_model(ref.name, checkpoint=ref.checkpoint)
    except KdnaError as error:
        raise FolderError("KD607", f"the original {ref.name} cannot be rebuilt: {error.message}") from error
    if loaded.ref.sha256 != ref.sha256:
        where = f"{ref.name}, {ref.checkpoint}" if ref.checkpoint else ref.name
        raise FolderError(
            "KD607", f"the original ({where}) has changed since the conversion: its tensors' sha256 differs"
        )
    return loaded
