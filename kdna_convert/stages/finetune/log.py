"""A line of JSON a step: what a fine-tune leaves for one's own plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...core.errors import FolderError


class Log:
    """Appends to the file at `path`. Lines past step `begin`, of a killed run that is gone on with, go first."""

    def __init__(self, path: Path, begin: int) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if begin:
                self._keep_until(begin)
            self.file = path.open("a" if begin else "w", encoding="utf-8")
        except OSError as error:
            raise FolderError("KD604", f"{path} cannot be written: {error}") from error

    def add(self, **said: Any) -> None:
        """Raises FolderError KD604."""
        try:
            self.file.write(json.dumps(said) + "\n")
            self.file.flush()
        except OSError as error:
            raise FolderError("KD604", f"{self.path} cannot be written: {error}") from error

    def close(self) -> None:
        self.file.close()

    def _keep_until(self, begin: int) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step(line) is not None and (_step(line) or 0) <= begin]
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        beside.replace(self.path)


def _step(line: str) -> int | None:
    """None for the half of a line that a kill leaves."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
