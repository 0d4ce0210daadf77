"""Timing: nets take turns on a clock that the test moves, and all settings are restored."""

import gc

import pytest
import torch
from support.clock import Clock
from torch import Tensor, nn

from kdna_convert.network.totals import totals
from kdna_convert.stages.evaluate.timing import Timing, benchmark

X = torch.zeros(4, 3)


class Timed(nn.Module):
    """A net that records its calls, each of which takes a given time; the last time is repeated."""

    def __init__(self, clock: Clock, *seconds: float, name: str = "", calls: list[str] | None = None) -> None:
        super().__init__()
        self.linear, self.clock, self.seconds = nn.Linear(3, 2), clock, list(seconds)
        self.name, self.calls = name, [] if calls is None else calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(self.name)
        self.clock.advance(self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0])
        return self.linear(x)  # type: ignore[no-any-return]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the benchmark, which only the nets move."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


def test_a_row_has_the_median_its_spread_and_the_ratio_to_the_first_net(clock: Clock) -> None:
    nets = {"fast": Timed(clock, 0.01, 0.01, 0.02, 0.03, 0.04, 0.05), "slow": Timed(clock, 0.09)}
    fast, slow = benchmark(nets, X, rounds=5, warmup=1)
    assert (fast.ms, slow.ms) == pytest.approx((30, 90))
    assert (fast.spread_ms, slow.spread_ms) == pytest.approx((20, 0), abs=1e-9)
    assert (fast.ratio, slow.ratio) == pytest.approx((1, 3))
    assert (fast.throughput, slow.throughput) == pytest.approx((4 / 0.03, 4 / 0.09))


def test_nets_take_turns_and_each_begins_a_round(clock: Clock) -> None:
    calls: list[str] = []
    benchmark({name: Timed(clock, 0.0625, name=name, calls=calls) for name in "abc"}, X, rounds=3, warmup=2)
    assert "".join(calls[6:15]) == "abcbcacab"


def test_a_quick_net_is_repeated_until_a_run_takes_5_ms(clock: Clock) -> None:
    net = Timed(clock, 0.0008)
    (row,) = benchmark({"quick": net}, X, rounds=2, warmup=10)
    assert row.ms == pytest.approx(0.8)
    assert len(net.calls) == 10 + 2 * 7 + 1  # warm-up, rounds of 5.6 ms, and one call that counts the MACs


def test_a_row_has_the_exact_parameters_bytes_and_macs() -> None:
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


def test_no_nets_or_rounds_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        benchmark({}, X)
    with pytest.raises(ValueError, match="at least one"):
        benchmark({"net": nn.Linear(3, 2)}, X, rounds=0)


def test_progress_counts_rounds() -> None:
    calls: list[tuple[str, int, int]] = []
    benchmark({"net": nn.Linear(3, 2)}, X, rounds=2, progress=lambda *step: calls.append(step))
    assert calls == [("benchmark", 0, 2), ("benchmark", 1, 2), ("benchmark", 2, 2)]
