"""Laws of progress: how often a line appears, what it says is left, who writes it, and that silence is the default."""

from __future__ import annotations

import inspect
import io
import logging
import re
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.clock import Clock
from support.command import NET, kdna

import kdna_convert
from kdna_convert.core.progress import EVERY, Bar, PlainProgress, as_progress, in_notebook, minutes, on_stderr
from kdna_convert.inputs.recipe import load_recipe


def plain(calls: list[tuple[float, str, int, int]]) -> list[tuple[float, str]]:
    """The lines that these calls, each at its time, give, with the time of each."""
    clock, lines = Clock(), list[tuple[float, str]]()
    reporter = PlainProgress(lambda line: lines.append((clock.now, line)), clock)
    for clock.now, what, done, total in calls:
        reporter(what, done, total)
    return lines


def test_a_stage_begins_with_a_line_and_has_at_most_one_every_ten_seconds() -> None:
    steps = [(float(second) / 4, "calibrate", second, 400) for second in range(400)]
    times = [time for time, _ in plain(steps)]
    assert times[0] == 0
    assert all(later - earlier >= EVERY for earlier, later in pairwise(times))
    assert len(times) == 10


def test_a_stage_that_comes_back_has_no_line_of_its_own() -> None:
    """A repair goes through calibration and back, many times a second on a small net."""
    steps = [(number / 100, ("repair: refit", "calibrate")[number % 2], 0, 3) for number in range(500)]
    assert [line for _, line in plain(steps)] == ["0:00 repair 0/3: refit", "0:00 calibrate 0/3"]


def test_what_is_left_is_estimated_by_the_rate_since_the_stage_began() -> None:
    lines = plain([(0, "load", 0, 0), (30, "fit: a", 0, 4), (50, "fit: b", 1, 4), (70, "fit: c", 2, 4)])
    assert [line for _, line in lines] == [
        "0:00 load",
        "0:30 fit 0/4: a",
        "0:50 fit 1/4: b, about 1:00 left",
        "1:10 fit 2/4: c, about 0:40 left",
    ]


def test_a_resumed_stage_is_estimated_by_what_it_did_itself() -> None:
    lines = plain([(0, "fine-tune", 900, 1000), (20, "fine-tune", 950, 1000)])
    assert lines[-1][1] == "0:20 fine-tune 950/1000, about 0:20 left"


def test_a_bar_is_one_line_drawn_again_and_a_stage_that_ends_keeps_it() -> None:
    clock, stream = Clock(), io.StringIO()
    bar = Bar(stream, lambda: 80, clock)
    for clock.now, done in ((0, 0), (1, 1), (1.01, 2), (2, 3), (3, 4)):
        bar("fit: layer1", done, 4)
    first, *lines = stream.getvalue().split("\r")
    assert first == ""
    assert [line.split()[2] for line in lines] == ["0/4", "1/4", "3/4", "4/4"]  # the call 0.01 s later is not drawn
    assert [line.endswith("\n") for line in lines] == [False, False, False, True]
    bar("repair: refit", 0, 3)
    bar.close()
    assert stream.getvalue().endswith("\r")
    assert max(map(len, stream.getvalue().replace("\n", "\r").split("\r"))) < 80


def test_a_long_line_is_cut_to_the_terminal() -> None:
    stream = io.StringIO()
    Bar(stream, lambda: 40, Clock())("fit: " + "a" * 200, 1, 4)
    assert len(stream.getvalue()) == 40  # the carriage return, and 39 columns


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.7, "1:00"), (62, "1:02"), (3723, "1:02:03")])
def test_times_are_written_as_minutes_and_seconds(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_a_terminal_has_a_bar_and_a_file_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, kind in ((True, Bar), (False, PlainProgress)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        assert isinstance(on_stderr(), kind)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(on_stderr(), PlainProgress)


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    assert isinstance(on_stderr(), Bar)


def test_only_the_first_of_several_processes_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert as_progress(True) is None
    assert as_progress(lambda *_: None) is None
    monkeypatch.setenv("RANK", "0")
    assert as_progress(True) is not None


def test_the_library_is_silent_by_default_and_says_what_it_does_if_asked(capfd: pytest.CaptureFixture[str]) -> None:
    images = torch.zeros(4, 3, 16, 16)
    kdna_convert.evaluate(NET, data=images)
    assert capfd.readouterr() == ("", "")
    kdna_convert.evaluate(NET, data=images, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("kdna: 0:00 evaluate 0/")


def test_the_logger_has_a_line_a_stage_once_however_verbs_call_each_other(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.INFO, logger="kdna_convert"):
        kdna_convert.plan(NET, recipe=load_recipe("balanced", ["repair=[]"]), data=images, max_drop=100.0)
    stages = [message.split()[1] for message in caplog.messages]  # `plan` calls `convert` for max_drop
    assert {"calibrate", "predict", "fit"} <= set(stages)
    assert stages.count("load") == 1


def test_a_callable_is_what_is_called() -> None:
    def called(what: str, done: int, total: int) -> None: ...

    assert as_progress(called) is called
    assert as_progress(None) is as_progress(False) is None


def verbs() -> dict[str, Any]:
    public = {name: getattr(kdna_convert, name) for name in kdna_convert._HOME}
    return {name: verb for name, verb in public.items() if "progress" in inspect.signature(verb).parameters}


@pytest.mark.parametrize("name", verbs())
def test_every_public_verb_takes_true_for_a_bar(name: str) -> None:
    verb = verbs()[name]
    assert inspect.signature(verb).parameters["progress"].annotation == "Progress | bool | None"
    assert "as_progress(progress)" in inspect.getsource(verb)


def test_a_command_reports_on_stderr_and_not_with_quiet() -> None:
    command = ("eval", "kdna:digits", "--data", "kdna:digits/test", "--limit", "20")
    loud, quiet = kdna(*command), kdna(*command, "-q")
    assert re.fullmatch(r"kdna: \d+:\d\d evaluate.*", loud.stderr.splitlines()[-1])
    assert (loud.stdout, quiet.stderr) == (quiet.stdout, "")
