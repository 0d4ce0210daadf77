"""The times of a net's layers, measured or read for a plan that has a target latency."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.choices import Database
from ..core.errors import ModelError, PlanError
from ..core.machine import cpu_name
from ..core.measurements import LatencyReport
from ..core.specs import DataConfig, Progress
from ..inputs.models import example_input
from ..network.derive import factor
from ..network.folder import Conversion
from ..stages.latency import RUNTIMES, Clock
from ..stages.latency.latencies import with_latencies
from ..stages.latency.latency_file import machines, own_file
from ..stages.latency.runtime import nanoseconds
from .keywords import LatencyOptions


def timed(
    database: Database, model: nn.Module, data: DataConfig, options: LatencyOptions, progress: Progress | None
) -> Database:
    """The database with the times of the net and its choices, if the options have a target latency.

    Raises:
        ModelError: KD312 for a runtime that is not installed, or that cannot run the net.
        PlanError: KD510 for a file of times of another machine.
    """
    if options.get("target_latency") is None:
        return database
    return with_latencies(database, model.cpu().eval(), example_input(data), clock_of(options), progress)


def require_runtime(options: LatencyOptions) -> None:
    """Raise before the work what `timed` would raise after it for the runtime and the file of times."""
    if options.get("target_latency") is not None:
        clock_of(options)


def with_measured(conversion: Conversion, options: LatencyOptions) -> Conversion:
    """The conversion with its measured time in its report, if its plan was made for a latency on this machine."""
    original, planned = conversion.plan.original.latency, conversion.plan.planned.latency
    if options.get("target_latency") is None or original is None or planned is None:
        return conversion
    clock = clock_of(options)
    if clock.machine != cpu_name():
        return conversion
    net = factor(copy.deepcopy(conversion.model)).cpu().eval()
    found = nanoseconds(clock.runtime.load_net(net, example_input(conversion.data), clock.threads))
    times = LatencyReport(clock.label, original / 1e6, planned / 1e6, found / 1e6)
    return replace(conversion, report=replace(conversion.report, latency=times))


def clock_of(options: Any) -> Clock:
    """What times layers and nets, by `runtime`, `threads`, `profile` and `other_machine`. Raises as `timed` does."""
    name = options.get("runtime") or "onnxruntime"
    if name not in RUNTIMES:
        raise ModelError("KD302", f"there is no runtime {name!r}; it is one of {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[name]
    missing = [each for each in runtime.needs if find_spec(each) is None]
    if missing:
        raise ModelError("KD312", f"{', '.join(missing)} not installed: pip install 'kdna-convert[{runtime.extra}]'")
    file = Path(options.get("profile") or own_file())
    found, here = machines(file), cpu_name()
    threads = options.get("threads") or torch.get_num_threads()
    if options.get("profile") is None or here in found or not found:
        return Clock(runtime, threads, file)
    if not options.get("other_machine"):
        what = f"{file} has times of {', '.join(found)}; this machine is {here}"
        raise PlanError("KD510", f"{what}; pass --other-machine to plan for that one")
    if len(found) > 1:
        raise PlanError("KD510", f"{file} has times of several machines: {', '.join(found)}; keep those of one")
    return Clock(runtime, threads, file, found[0])
