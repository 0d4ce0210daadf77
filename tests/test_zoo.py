"""The zoo: a row for each job of its grid, which names no place of a machine, and what a second run may differ by."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import benchmark
from support.places import ROOT

from kdna_convert.inputs.grid_reading import load_grid

zoo = benchmark("zoo")
ROWS: list[dict[str, Any]] = json.loads(zoo.RESULTS.read_text(encoding="utf-8"))


def test_the_grid_can_be_read_and_names_what_every_original_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    jobs = load_grid(ROOT / "benchmarks" / "zoo.yaml").jobs
    nets = {job.net.name: job.net for job in jobs}
    assert len(nets) == 9
    assert [name for name, net in nets.items() if not net.original] == ["realesrgan"]  # it has no labels


def test_every_job_of_the_grid_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    jobs = [job.name for job in load_grid(zoo.GRID).jobs]
    assert [row["job"] for row in zoo.recorded()] == jobs


def test_a_sweep_of_a_part_replaces_its_rows_only_and_a_failure_replaces_no_result() -> None:
    first, second = ROWS[:2]
    newer = {**second, "seconds": 1.0}
    failed = {**first, "state": "failed"}
    jobs = [second["job"], first["job"]]
    assert zoo.replaced([first, second], [newer, failed], jobs) == [newer, first]
    assert zoo.replaced([failed, second], [first], jobs[1:]) == [first]


def test_rows_name_no_place_of_the_machine_that_made_them(tmp_path: Path) -> None:
    row = {**ROWS[0], "host": "here", "command": f"kdna run a --data /my/data/x -o {tmp_path}/jobs/a"}
    (tmp_path / "sweep.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = zoo.rows_of(tmp_path, "/my/data")
    assert (found["command"], found["host"]) == ("kdna run a --data DATA/x -o zoo/jobs/a", "")
    assert not [each for each in ROWS if re.search(r"/(tmp|home|work|root)/", each["command"])]


def test_a_second_run_that_differs_by_more_than_the_play_is_told() -> None:
    first = ROWS[0]
    own = first["result"]
    other = {**first, "result": {**own, "measures": {**own["measures"], "top1": own["measures"]["top1"] - 0.01}}}
    shown, most = zoo.compared([first], [other])
    assert first["job"] in shown
    assert most == pytest.approx(1.0)
    assert most > zoo.PLAY
