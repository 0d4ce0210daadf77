"""The fourth number: milliseconds, measured. All nets take turns in one run, so that what slows one slows them all."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.modes import eval_mode
from ...core.specs import Progress
from ...network.inference import device_of
from ...network.totals import totals

# One timed run repeats a net until it has taken so long, in seconds: a clock's jitter must not be what is measured.
SHORTEST = 0.005


@dataclass(frozen=True)
class Timing:
    """One net's row. `ms` is the median time of a batch, `spread_ms` the range of its middle half (IQR).

    `throughput` is in images per second; `ratio` is the median, over the rounds, of this net's time to the first net's
    in the same round. `bytes` is the size of the file; `macs` are per image.
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
    device: str  # "cpu, 2 threads" or the GPU's name


def benchmark(
    models: Mapping[str, nn.Module],
    example: Tensor,
    *,
    rounds: int = 30,
    warmup: int = 5,
    threads: int | None = None,
    device: str | torch.device | None = None,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    progress: Progress | None = None,
) -> tuple[Timing, ...]:
    """Time every net on the batch `example`: `warmup` untimed rounds, then `rounds` timed ones, in turn, a row a net.

    Nets are timed in eval mode as they stand: a converted one computes its weights at each call, a folded one does not.
    With `device` they are moved there, in place; `threads` holds for the run only. `metadata` is, by the nets' names,
    what their files say about themselves. Rounds start with another net each time.
    """
    if rounds < 1 or not models:
        raise ValueError("at least one net and one round are needed")
    nets = {name: (net if device is None else net.to(device)) for name, net in models.items()}
    where = device_of(next(iter(nets.values())))
    batch = example.to(where)
    with _quiet(nets, threads), torch.inference_mode():
        times = _interleave(nets, batch, rounds, warmup, progress)
        label = _label(where)
    first = next(iter(times.values()))
    files = metadata or {}
    return tuple(_row(name, nets[name], batch, times[name], first, label, files.get(name)) for name in times)


def _interleave(
    nets: Mapping[str, nn.Module], batch: Tensor, rounds: int, warmup: int, progress: Progress | None
) -> dict[str, list[float]]:
    """Seconds a call of every net, a list as long as there are rounds."""
    clock = _clock(batch.device)
    warm = [min(clock(net, batch, 1) for net in nets.values()) for _ in range(max(1, warmup))]
    repeats = max(1, math.ceil(SHORTEST / max(min(warm), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in nets}
    names = list(nets)
    for done in range(rounds):
        if progress:
            progress("benchmark", done, rounds)
        turn = done % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(clock(nets[name], batch, repeats) / repeats)
    if progress:
        progress("benchmark", rounds, rounds)
    return times


def _clock(device: torch.device) -> Callable[[nn.Module, Tensor, int], float]:
    """Seconds that a net takes for a batch, so many times over. A GPU is waited for before and after."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def clock(net: nn.Module, batch: Tensor, repeats: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            net(batch)
        wait()
        return time.perf_counter() - start

    return clock


@contextmanager
def _quiet(nets: Mapping[str, nn.Module], threads: int | None) -> Iterator[None]:
    """Eval mode, the asked-for threads and no garbage collection, all put back afterwards."""
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
