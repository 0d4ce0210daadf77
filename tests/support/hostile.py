"""Folders as a stranger makes them: changed, and sealed again with sums that agree."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from torch import nn

from kdna_convert.core.filesize import FORMAT_VERSION
from kdna_convert.core.specs import DataConfig, ModelRef
from kdna_convert.network.folder.rebuild import rebuild
from kdna_convert.network.folder.record import CONFIG, PLAN, TENSORS, Record, with_record
from kdna_convert.network.folder.trust import permitted


def rename(folder: Path, name: str, places: Collection[str] = (CONFIG, PLAN)) -> Path:
    """Name another model in these files of the folder, in place, and recompute every sum."""
    plan = json.loads((folder / PLAN).read_text())
    if PLAN in places:
        plan["model"]["name"] = name
        (folder / PLAN).write_text(json.dumps(plan))
    return reseal(folder, name if CONFIG in places else None)


def built_for(name: str, folder: Path) -> nn.Module:
    """The net that a folder from elsewhere gets which names this model."""
    (folder / TENSORS).touch()
    record = Record(FORMAT_VERSION, ModelRef(name), DataConfig(), {})
    return rebuild(permitted(record, folder), folder)


def reseal(folder: Path, name: str | None = None) -> Path:
    """Recompute the record of a folder whose files were changed; with `name`, the record names that model."""
    config = json.loads((folder / CONFIG).read_text())
    block = config.pop("kdna")
    ref, data = ModelRef(**{**block["model"], **({} if name is None else {"name": name})}), DataConfig(**block["data"])
    (folder / CONFIG).write_text(json.dumps(with_record(config, folder, ref, data)))
    return folder
