"""The times that were measured, in a file of JSON lines. A time is written at once, so that a stop loses none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.atomic import disk_errors
from ...core.errors import PlanError
from ...core.machine import cpu_name
from .layer_form import LayerForm
from .runtime import Run, Runtime, nanoseconds


def own_file() -> Path:
    """The file of this user: ~/.cache/kdna/latency.jsonl, or in the folder of XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "kdna" / "latency.jsonl"


@dataclass(frozen=True)
class Clock:
    """Times layers and nets, or reads their times from a file.

    Attributes:
        runtime: What runs them.
        threads: CPU threads.
        file: Where the times are.
        machine: The processor whose times are wanted. On another one than this, nothing is measured.
        measure: Times a call, in nanoseconds.
        known: The times, by their keys.
    """

    runtime: Runtime
    threads: int = field(default_factory=torch.get_num_threads)
    file: Path = field(default_factory=own_file)
    machine: str = field(default_factory=cpu_name)
    measure: Callable[[Run], int] = nanoseconds
    known: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known.update(_read(self.file))

    @property
    def label(self) -> str:
        """`onnxruntime 1.23.2, 2 threads, AMD EPYC`."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.runtime.name} {self.runtime.version()}, {threads}, {self.machine}"

    def layer(self, form: LayerForm, dtype: str = "fp32") -> int:
        """Nanoseconds of one layer on one batch."""
        return self._time(
            {"layer": form.key, "dtype": dtype}, lambda: self.runtime.load_layer(form, self.threads, dtype)
        )

    def net(self, net: nn.Module, example: Tensor, name: str) -> int:
        """Nanoseconds of a net on one batch; `name` stands for the net in the file."""
        return self._time(
            {"net": name, "input": list(example.shape)}, lambda: self.runtime.load_net(net, example, self.threads)
        )

    def _time(self, what: Mapping[str, Any], load: Callable[[], Run]) -> int:
        own = {"machine": self.machine, "runtime": self.runtime.name, "version": self.runtime.version()}
        key = {**own, "threads": self.threads, **what}
        name = json.dumps(key, sort_keys=True)
        if name not in self.known:
            if self.machine != cpu_name():
                raise PlanError("KD510", f"{self.file} lacks a time of {self.label}; run `kdna profile` there")
            self.known[name] = self.measure(load())
            _append(self.file, key | {"ns": self.known[name]})
        return self.known[name]


def machines(path: Path) -> list[str]:
    """The processors whose times a file has."""
    return sorted({json.loads(key)["machine"] for key in _read(path)})


def _read(path: Path) -> dict[str, int]:
    """Each time by its key. Lines that were cut off are left out.

    Raises PlanError KD510 for a file that cannot be read or holds no time at all, which must not be added to.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PlanError("KD510", f"{path} cannot be read: {error.strerror}; choose another --profile") from None
    except UnicodeDecodeError:
        raise _no_times(path) from None
    times = {}
    for line in lines:
        try:
            row = json.loads(line)
            value, _ = int(row.pop("ns")), row["machine"]
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        times[json.dumps(row, sort_keys=True)] = value
    if lines and not times:
        raise _no_times(path)
    return times


def _no_times(path: Path) -> PlanError:
    return PlanError("KD510", f"{path} is no file of times; choose another --profile")


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row as a line of its own."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that was cut off, which is left out when the file is read
                    file.write(b"\n")
            file.write((json.dumps(row) + "\n").encode())
