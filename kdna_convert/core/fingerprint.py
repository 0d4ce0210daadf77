"""Hashes of what a file was made from, so that a file made from something else is noticed and what differs is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import PlanError

# A part that differs, in an error message.
NAMES = {
    "model": "another model",
    "recipe": "another recipe",
    "data": "other data",
    "settings": "other settings (calibration, seed, inputs or --data-free)",
}


@dataclass(frozen=True)
class Fingerprint:
    """`whole` is the hash of everything; `parts` are those of the model, the recipe, the data and the settings."""

    whole: str
    parts: Mapping[str, str] = field(default_factory=dict)

    def require(self, path: str | Path, whole: str | None, parts: Mapping[str, str]) -> None:
        """Compare with the hashes that a file holds; a file of an earlier version has no parts.

        Raises:
            PlanError: KD505 where they differ, with the names of the parts that do.
        """
        if whole == self.whole:
            return
        differ = [NAMES[name] for name, value in self.parts.items() if parts.get(name, value) != value]
        why = " and ".join(differ) or "another model, recipe, data or settings"
        raise PlanError("KD505", f"{path} was made from {why}; delete it or name another file")


def place_in(place: str | Path, kind: str, whole: str) -> Path:
    """The file at `place`; in a folder, the file of this kind (as `moments.safetensors`) that was made from `whole`."""
    path = Path(place)
    return path / f"{Path(kind).stem}-{whole[:16]}{Path(kind).suffix}" if path.is_dir() else path


def digest(value: Any) -> str:
    """The sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def parts_of(**parts: Any) -> dict[str, str]:
    """The hash of each part: model, recipe, data and settings."""
    return {name: digest(value) for name, value in parts.items()}
