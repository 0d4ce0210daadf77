"""Time nets in milliseconds. All nets take turns in one run, so that other load slows all of them equally."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...core.modes import eval_mode
from ...core.specs import Progress
from ...network.inference import device_of
from ...network.totals import totals

# The shortest timed run, in seconds: a net is repeated until it takes this long, well above the clock's jitter.
SHORTEST = 0.005
Run = Callable[[], object]
Load = Callable[[nn.Module, Tensor, int], Run]


@dataclass(frozen=True)
class Timing:
    """The timing of one net.

    Attributes:
        name: Its name.
        params: Parameters.
        bytes: Size of the file.
        macs: MACs per image.
        ms: Median time of a batch.
        spread_ms: Interquartile range of that time.
        throughput: Images per second.
        ratio: Median over the rounds of the time relative to the first net in the same round.
        batch: Images per batch.
        rounds: Timed rounds.
        device: "cpu, 2 threads", or the name of the GPU.
    """

    name: str
    params: int
    bytes: int
    macs: int
    ms: float
    spread_ms: float
    throughput: float
    ratio: float
    batch: int
    rounds: int
    device: str


def benchmark(
    models: Mapping[str, nn.Module],
    example: Tensor,
    *,
    rounds: int = 30,
    warmup: int = 5,
    threads: int | None = None,
    device: str | torch.device | None = None,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    load: Load | None = None,
    label: str | None = None,
    progress: Progress | None = None,
) -> tuple[Timing, ...]:
    """Time every net on one batch, in eval mode.

    A converted net computes its weights at each call, a folded one does not. Each round starts with another net.

    Args:
        models: Nets by name.
        example: The batch.
        rounds: Timed rounds.
        warmup: Untimed rounds before them.
        threads: CPU threads during the run; None: unchanged.
        device: Where the nets are moved, in place; None: where they are.
        metadata: The metadata of the nets' files, by name, for exact `bytes`.
        load: Makes a net ready to run on a batch, with so many threads, in another runtime; None: torch runs it.
        label: What is timed, in place of the device's name.
        progress: Called before each round.
    """
    if rounds < 1 or not models:
        raise ValueError("at least one net and one round are needed")
    nets = {name: (net if device is None else net.to(device)) for name, net in models.items()}
    where = device_of(next(iter(nets.values())))
    batch = example.to(where)
    with _quiet(nets, threads):
        runs = {name: _ready(net, batch, load) for name, net in nets.items()}
        with torch.inference_mode():
            times = _interleave(runs, where, rounds, warmup, progress)
        label = label or _label(where)
    first = next(iter(times.values()))
    files = metadata or {}
    return tuple(_row(name, nets[name], batch, times[name], first, label, files.get(name)) for name in times)


def _ready(net: nn.Module, batch: Tensor, load: Load | None) -> Run:
    """The net as a call without arguments."""
    return partial(net, batch) if load is None else load(net, batch, torch.get_num_threads())


def _interleave(
    nets: Mapping[str, Run], device: torch.device, rounds: int, warmup: int, progress: Progress | None
) -> dict[str, list[float]]:
    """Seconds per call of every net, one number per round."""
    clock = _clock(device)
    warm = [min(clock(net, 1) for net in nets.values()) for _ in range(max(1, warmup))]
    repeats = max(1, math.ceil(SHORTEST / max(min(warm), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in nets}
    names = list(nets)
    for done in range(rounds):
        if progress:
            progress("benchmark", done, rounds)
        turn = done % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(clock(nets[name], repeats) / repeats)
    if progress:
        progress("benchmark", rounds, rounds)
    return times


def _clock(device: torch.device) -> Callable[[Run, int], float]:
    """A function that measures the seconds of a number of calls. It synchronizes a GPU before and after."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def clock(run: Run, repeats: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        wait()
        return time.perf_counter() - start

    return clock


@contextmanager
def _quiet(nets: Mapping[str, nn.Module], threads: int | None) -> Iterator[None]:
    """Eval mode, this number of CPU threads and no garbage collection; all are restored on exit."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads or before)
    gc.collect()
    gc.disable()
    try:
        with eval_mode(*nets.values()):
            yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def _label(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


def _row(
    name: str,
    net: nn.Module,
    batch: Tensor,
    seconds: list[float],
    first: list[float],
    device: str,
    metadata: Mapping[str, str] | None,
) -> Timing:
    cost = totals(net, batch, metadata)
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else (median,) * 3
    return Timing(
        name=name,
        params=cost.params,
        bytes=cost.bytes,
        macs=cost.macs,
        ms=1000 * median,
        spread_ms=1000 * (high - low),
        throughput=len(batch) / median,
        ratio=statistics.median(own / other for own, other in zip(seconds, first, strict=True)),
        batch=len(batch),
        rounds=len(seconds),
        device=device,
    )
