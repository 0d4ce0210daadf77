"""Writing the conversions of several fine-tunes: a folder for each, and an update from the first to each other one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import FolderError
from .conversion import Conversion
from .record import OR_FORCE, TENSORS
from .save import require_free, save
from .update import diff

SUFFIX = ".update"


@dataclass(frozen=True)
class SavedVariant:
    """A fine-tune on the disk: its folder, the bytes of its tensors, and those of its update; None for the first."""

    folder: str
    bytes: int
    update: int | None


def require_place(directory: str | Path, names: list[str], *, force: bool) -> None:
    """Check before the work that `save_variants` may write there. Raises FolderError KD601 and KD604 as it does."""
    for name in names:
        require_free(Path(directory) / name, force)
        update = Path(directory) / f"{name}{SUFFIX}"
        if update.exists() and not force:
            raise FolderError("KD601", f"{update} exists already; {OR_FORCE}")


def save_variants(
    conversions: Mapping[str, Conversion], directory: str | Path, *, base: str | Path | None = None, force: bool = False
) -> tuple[SavedVariant, ...]:
    """Write conversions that share tensors: `directory`/NAME, and NAME.update of all but the base.

    Args:
        conversions: By name.
        directory: Where to write; made if it is missing.
        base: The folder that the updates are made from. None: that of the first conversion.
        force: Whether to replace folders and updates.

    Raises:
        FolderError: KD601 (something exists there and `force` is not given), KD604 (it cannot be written), KD602 or
            KD603 (`base` is not whole).
    """
    place, written = Path(directory), []
    require_place(place, list(conversions), force=force)
    for name, conversion in conversions.items():
        folder = save(conversion, place / name, force=force)
        whole, update = (folder / TENSORS).stat().st_size, None
        if base is not None:
            update = diff(base, folder, place / f"{name}{SUFFIX}", force=force).bytes
        written.append(SavedVariant(str(folder), whole, update))
        base = folder if base is None else base
    return tuple(written)
