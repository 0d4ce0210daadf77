"""Whether a folder may have the net built that it names: one decision for everything that reads a folder.

A folder is data, and its sums prove only that it is whole: anyone can compute them. So a folder may name an
architecture that timm, torchvision or kdna lists, with plain arguments (inputs/models/registry.py). Any other name runs
code: a file, a module, a repository of the Hub. It needs the caller's word, `trust_code`, or an entry for exactly this
folder and this source file among the user's own. `save` adds an entry for each folder that it writes, `kdna trust` adds
one by hand.

An entry is a file, CONFIG/kdna/trusted/SUM.json. CONFIG is $XDG_CONFIG_HOME, else %APPDATA%, else ~/.config. SUM is the
folder's sum, which covers the hash of every file in it, so that a folder may be moved. The source file is recorded by
its path and its hash, since the modules that it imports are found by its path.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ...core.errors import FolderError, KdnaError, ModelError
from ...core.shown import shown
from ...inputs.models.names import LISTS, ModelName, parse_name
from ...inputs.models.registry import is_listed, unusual_argument
from ...inputs.models.source_file import source_file
from .record import TENSORS, Record, read_record

# Numbers that a listed architecture may hold: so many in any case, more where the folder's tensors are larger.
ALWAYS, PER_BYTE = 100_000_000, 16
# Entries that are kept, and bytes of one that are read.
_KEPT, _ENTRY_BYTES = 10_000, 16_384
_SHOWN = 300
_LOG = logging.getLogger("kdna_convert")


@dataclass(frozen=True)
class Permit:
    """What may be built, and how many numbers it may hold: None for no limit."""

    name: ModelName
    limit: int | None


@dataclass(frozen=True)
class Claim:
    """What a folder would run, and the identities of both: what an entry holds.

    Attributes:
        sha256: The folder's sum.
        model: The MODEL that it names.
        runs: The code that building it runs, None for a listed architecture with plain arguments.
        file: The source file of that code, None where it is not found.
        file_sha256: The hash of the source file.
    """

    sha256: str
    model: str
    runs: str | None
    file: str | None
    file_sha256: str | None


def permitted(record: Record, folder: Path, *, trust_code: bool = False) -> Permit:
    """What may be built for a folder, whose files match its record.

    Raises:
        FolderError: KD607 (the name is not a MODEL, or its source file is not there), KD611 (building it needs the
            caller's word).
    """
    try:
        name = parse_name(record.model.name)
    except ModelError as error:
        raise FolderError("KD607", f"{folder}: {error.message}. Or build the net yourself and pass model=") from error
    if trust_code:
        return Permit(name, None)
    if name.source in LISTS and ":" not in name.path and not is_listed(name):
        why = f"this {name.source} has no model {_short(name.path)}; install the version that it was converted with"
        raise FolderError("KD607", f"{folder}: {why}. Or build the net yourself and pass model=")
    if name.path == "__main__":
        why = f"{folder} was made from {_short(name.factory)}, a class of a notebook or a script"
        raise FolderError("KD607", f"{why}; build the net yourself and pass model= to kdna_convert.open_folder")
    runs = _runs(name)
    if runs is None:
        return Permit(name, max(ALWAYS, PER_BYTE * (folder / TENSORS).stat().st_size))
    entry = _entry(record.sha256)
    if entry is None:
        raise untrusted(folder, f"names {_short(name.text)}, which {runs}")
    _require_same(claim_of(record), entry, folder)
    return Permit(name, None)


def untrusted(folder: Path, why: str) -> FolderError:
    """The error KD611 of a folder that needs the caller's word."""
    word = f"--trust-code, trust_code=True in Python, or `kdna trust {folder}`"
    way_out = f"if you trust it: {word}. Or build the net yourself and pass model= to kdna_convert.open_folder"
    return FolderError("KD611", f"{folder} {why}. Nothing was run; {way_out}")


def claim_of(record: Record) -> Claim:
    """What a folder would run. Nothing is imported. Raises ModelError KD301, KD302 for a name that is not a MODEL."""
    name = parse_name(record.model.name)
    file = source_file(name)
    digest = None if file is None else _digest(file)
    return Claim(record.sha256, name.text, _runs(name), None if digest is None else str(file), digest)


def remember(claim: Claim) -> Path:
    """Add the entry of a folder, so that it is trusted on this machine, and return its file. Raises OSError."""
    place = _place()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = place / f"{claim.sha256}.json"
    handle, draft = tempfile.mkstemp(dir=place, prefix=".", suffix=".draft")  # private, mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(claim), file, indent=2)
        Path(draft).replace(target)
    finally:
        Path(draft).unlink(missing_ok=True)
    _prune(place)
    return target


def remember_saved(folder: Path) -> None:
    """Trust a folder that was just written, where that is needed. A failure leaves the folder as one to be trusted."""
    try:
        claim = claim_of(read_record(folder))
        name = parse_name(claim.model)
        if name.path != "__main__" and claim.runs and (claim.file is not None or name.source in LISTS):
            remember(claim)
    except (KdnaError, OSError) as error:
        _LOG.warning("the folder is not among the trusted ones: %s; see `kdna trust`", error)


def _runs(name: ModelName) -> str | None:
    """The code that building a MODEL runs, in words; None for a listed architecture with plain arguments."""
    unusual = unusual_argument(name)
    if is_listed(name):
        return None if unusual is None else f"passes {_short(unusual)} to {name.factory or name.source}"
    if name.source in LISTS:
        return f"has {name.source} read {_short(name.path)}"
    _, _, call = name.text.partition(f":{name.factory}")
    file = source_file(name)
    where = f"{name.path}, which is not here" if file is None else str(file)
    return f"runs {_short(name.factory + (call or '()'))} of {_short(where)}"


def _require_same(claim: Claim, entry: Claim, folder: Path) -> None:
    """Raise for a source file that is missing, elsewhere or changed since the folder was trusted."""
    if entry.file is not None and claim.file is None:
        where = Path(entry.file).parent
        way_out = f"go to the directory from which it was converted, or restore {entry.file}"
        raise FolderError("KD607", f"{folder} was made from {claim.model}, which is not there; {way_out} ({where})")
    if claim.file != entry.file:
        raise untrusted(folder, f"was trusted with {entry.file}, and here it {claim.runs}")
    if claim.file_sha256 != entry.file_sha256:
        raise untrusted(folder, f"{claim.runs}, which has changed since the folder was trusted")


def _digest(file: Path) -> str | None:
    """The hash of a file, None if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _entry(sha256: str) -> Claim | None:
    """The entry of a folder; None where there is none, or where it is damaged or open to other users."""
    path = _place() / f"{sha256}.json"
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
                return None
            return Claim(**json.loads(file.read(_ENTRY_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _place() -> Path:
    """The directory of the entries."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA") or Path.home() / ".config"
    return Path(home, "kdna", "trusted")


def _prune(place: Path) -> None:
    """Remove the oldest entries beyond _KEPT."""
    entries = list(place.glob("*.json"))
    if len(entries) > _KEPT:
        for path in sorted(entries, key=lambda entry: entry.stat().st_mtime)[: len(entries) - _KEPT]:
            path.unlink(missing_ok=True)


def _short(text: str) -> str:
    """Text of a folder for an error: one line, not too long."""
    plain = shown(text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]} ..."
