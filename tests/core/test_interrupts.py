"""What must be whole is not interrupted: signals wait for its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kdna_convert.api.sweeping import local_processes
from kdna_convert.api.sweeping.execution import SweepTask
from kdna_convert.core.interrupts import signals_as_interrupt, signals_delayed

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_the_block_and_interrupts_then(number: signal.Signals) -> None:
    done = []

    def work() -> None:
        with signals_delayed():
            signal.raise_signal(number)
            done.append("inside")
        done.append("after")

    with signals_as_interrupt(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inside"]


def test_without_a_signal_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with signals_delayed():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_job_that_starts_as_the_sweep_is_ended_is_known_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Started:
        def __init__(self, *_: object, **__: object) -> None:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(local_processes, "Execution", Started)
    executor = local_processes.LocalProcesses(1, 1)
    with signals_as_interrupt(), pytest.raises(KeyboardInterrupt):
        executor.start(SweepTask("job", "net", (), tmp_path))
    assert [*executor.running] == ["job"]
