"""The record of a converted folder, the `kdna` block of its config.json, and checks against it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from ...core.errors import FolderError
from ...core.filesize import FORMAT_VERSION
from ...core.regular import open_regular, read_regular
from ...core.specs import DataConfig, ModelRef, product, to_json
from ...inputs.models import input_problem

CONFIG, TENSORS, RECIPE, PLAN, REPORT, CARD, LOADER = (
    "config.json",
    "model.safetensors",
    "recipe.yaml",
    "plan.json",
    "report.json",
    "README.md",
    "loader.py",
)
# Every file except config.json, which holds their hashes.
FILES = (TENSORS, RECIPE, PLAN, REPORT, CARD, LOADER)
# The way out where a folder exists; a sweep, which has no --force, names another.
OR_FORCE = "choose another place or pass --force"
# The most numbers in one input: a picture of 2,300 pixels square, or a clip of 100 frames of 224.
MOST_INPUTS = 2**24


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Record:
    """The `kdna` block. `files` has the sha256 of each file; `sha256` is that of config.json without this key."""

    version: int
    model: ModelRef
    data: DataConfig
    files: dict[str, str]
    sha256: str = ""


def with_record(config: Mapping[str, Any], folder: Path, model: ModelRef, data: DataConfig) -> dict[str, Any]:
    """The contents of config.json: `config` and the record of a folder whose other files are complete."""
    record = Record(FORMAT_VERSION, model, data, {name: _digest(folder / name) for name in FILES})
    whole: dict[str, Any] = json.loads(json.dumps({**config, "kdna": json.loads(to_json(record))}))
    whole["kdna"]["sha256"] = _own_digest(whole)
    return whole


def read_record(folder: Path) -> Record:
    """Read the record. Raises FolderError KD602 (not written by kdna), KD603 (damaged), KD605 (newer kdna)."""
    path = folder / CONFIG
    if not path.is_file():
        raise FolderError("KD602", f"{folder} is not a folder written by kdna: it has no {CONFIG}")
    try:
        config = json.loads(read_regular(path))
    except OSError as error:
        raise FolderError("KD603", f"{path} cannot be read: {error.strerror}; restore it") from None
    except (ValueError, RecursionError):
        raise FolderError("KD603", f"{path} is damaged: it is not JSON; restore it or convert again") from None
    block = config.get("kdna") if isinstance(config, dict) else None
    if not isinstance(block, dict):
        raise FolderError("KD602", f"{folder} is not a folder written by kdna: its {CONFIG} has no kdna block")
    version = block.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FolderError(
            "KD605", f"{folder} has format {version}, this kdna reads up to {FORMAT_VERSION}; update kdna"
        )
    try:
        record = Record(**block)
    except (ValidationError, TypeError):
        raise FolderError("KD603", f"{path} is damaged: its kdna block is not one that kdna wrote") from None
    if record.sha256 != _own_digest(config) or set(record.files) != set(FILES):
        raise FolderError(
            "KD603", f"{path} is damaged: it was changed after kdna wrote it; restore it or convert again"
        )
    problem = input_problem(record.data)
    if problem is None and product(record.data.input_size) > MOST_INPUTS:
        problem = f"an input of {product(record.data.input_size):,} numbers, more than {MOST_INPUTS:,}"
    if problem:
        raise FolderError("KD603", f"{path} is damaged: {problem}")
    return record


def check_file(folder: Path, record: Record, name: str) -> None:
    """Raise FolderError KD603 if a file is missing or does not match the record."""
    try:
        digest = _digest(folder / name)
    except OSError as error:
        raise FolderError("KD603", f"{folder / name} cannot be read: {error.strerror}; restore it") from None
    if digest != record.files[name]:
        raise FolderError("KD603", f"{folder / name} is damaged: its sha256 is not the recorded one; restore it")


def is_ours(folder: Path) -> bool:
    """Whether replacing this folder loses only a conversion: kdna wrote it, or it holds no other files."""
    if not folder.is_dir():
        return False
    try:
        read_record(folder)
    except FolderError as error:
        ours = error.code in ("KD603", "KD605")
        return ours or {path.name for path in folder.iterdir()} <= {CONFIG, *FILES}
    return True


def _own_digest(config: Mapping[str, Any]) -> str:
    """The hash of config.json, independent of its layout and the order of its keys."""
    block = {key: value for key, value in config["kdna"].items() if key != "sha256"}
    return hashlib.sha256(json.dumps({**config, "kdna": block}, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open_regular(path) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
