"""The interface of an export form, and the check of the path that all forms make."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Protocol

from ...core.atomic import require_writable
from ...core.errors import FolderError
from ...network.folder import Conversion


class Exported(Protocol):
    """A file that was written: a frozen dataclass whose fields are what `kdna export --json` prints."""

    @property
    def file(self) -> str:
        """The file's path."""
        ...

    @property
    def bytes(self) -> int:
        """The file's size."""
        ...

    @property
    def note(self) -> str:
        """What a user should know about the file, in one line."""
        ...

    @property
    def usage(self) -> str | None:
        """A line of Python that loads the file, or None."""
        ...


class Export(Protocol):
    """The interface of an export form, to derive from. Its laws are in tests/stages/export/test_export_laws.py.

    Attributes:
        name: The form's name on the command line.
        suffix: What follows the folder's name in the default file name.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def write(self, conversion: Conversion, path: str | Path, *, force: bool = False) -> Exported:
        """Write the net as one file, or nothing. The conversion does not change.

        Args:
            conversion: The converted net.
            path: The file. Missing folders are created.
            force: Replace an existing file.

        Raises:
            FolderError: KD601 if the file exists and `force` is not given, KD604 if it cannot be written.
        """


def free_path(path: str | Path, force: bool) -> Path:
    """The path as a Path, checked before the work.

    Raises FolderError KD601 if it exists and `force` is not given, KD604 if it cannot be written.
    """
    target = Path(path)
    if target.is_dir() or (target.exists() and not force):
        raise FolderError("KD601", f"{target} exists already; choose another file or pass --force")
    require_writable(target)
    return target
