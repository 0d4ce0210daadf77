"""Timing: nets take turns, and what they are timed on is put back."""

import gc
import math
import time

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.network.totals import totals
from kdna_convert.stages.evaluate.timing import Timing, benchmark

X = torch.zeros(4, 3)


class Sleeper(nn.Module):
    """A net of known slowness that writes down its calls."""

    def __init__(self, seconds: float, calls: list[str] | None = None, name: str = "") -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.seconds, self.calls, self.name = seconds, calls, name

    def forward(self, x: Tensor) -> Tensor:
        if self.calls is not None:
            self.calls.append(self.name)
        time.sleep(self.seconds)
        return self.linear(x)  # type: ignore[no-any-return]


def test_a_net_twice_as_slow_has_a_ratio_of_two() -> None:
    fast, slow = benchmark({"fast": Sleeper(0.006), "slow": Sleeper(0.012)}, X, rounds=5, warmup=1)
    assert fast.ratio == 1.0
    assert 1.6 < slow.ratio < 2.4
    assert 5 < fast.ms < 11
    assert math.isclose(fast.throughput, 4 * 1000 / fast.ms)
    assert 0 <= fast.spread_ms < fast.ms


def test_nets_take_turns_and_each_begins_a_round() -> None:
    calls: list[str] = []
    nets = {name: Sleeper(0.005, calls, name) for name in "abc"}
    benchmark(nets, X, rounds=3, warmup=2)
    assert "".join(calls[6:15]) == "abcbcacab"


def test_a_quick_net_is_repeated_until_the_clock_can_see_it() -> None:
    calls: list[str] = []
    benchmark({"quick": Sleeper(0, calls, "q")}, X, rounds=2, warmup=10)
    assert len(calls) > 20


def test_a_row_states_the_exact_numbers_too() -> None:
    model = nn.Linear(3, 2)
    (row,) = benchmark({"linear": model}, X, rounds=2)
    cost = totals(model, X)
    assert (row.params, row.bytes, row.macs) == (cost.params, cost.bytes, cost.macs) == (8, cost.bytes, 6)
    assert (row.name, row.batch, row.rounds) == ("linear", 4, 2)
    (told,) = benchmark({"linear": model}, X, rounds=2, metadata={"linear": {"format": "pt", "kdna": "1"}})
    assert told.bytes > row.bytes


def test_modes_threads_and_the_collector_are_put_back() -> None:
    model, threads = nn.Sequential(nn.Dropout(), nn.Linear(3, 2)).train(), torch.get_num_threads()
    (row,) = benchmark({"net": model}, X, rounds=2, threads=1)
    assert isinstance(row, Timing)
    assert row.device == "cpu, 1 thread"
    assert (model[0].training, torch.get_num_threads(), gc.isenabled()) == (True, threads, True)


def test_nothing_to_time_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        benchmark({}, X)
    with pytest.raises(ValueError, match="at least one"):
        benchmark({"net": nn.Linear(3, 2)}, X, rounds=0)


def test_progress_counts_rounds() -> None:
    seen: list[tuple[str, int, int]] = []
    benchmark({"net": nn.Linear(3, 2)}, X, rounds=2, progress=lambda *step: seen.append(step))
    assert seen == [("benchmark", 0, 2), ("benchmark", 1, 2), ("benchmark", 2, 2)]
