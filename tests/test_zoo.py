"""The zoo: its rows are data, its table is made from them, and the README says what they say."""

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
    assert len({job.net.name for job in jobs}) == 7
    assert all(job.net.original for job in jobs)
    assert {row["job"] for row in ROWS} <= {job.name for job in jobs}


def test_the_page_has_the_table_of_the_recorded_rows() -> None:
    page = zoo.PAGE.read_text(encoding="utf-8")
    assert zoo.with_table(page, ROWS) == page


def test_the_readmes_sentence_has_the_recorded_figures() -> None:
    """ResNet-56 at 1/20: two conversions that round differently are within the play."""
    told = re.search(r"a ResNet-56 \(top-1 ([\d.]+)\) has ([\d.]+) at 1/20", (ROOT / "README.md").read_text())
    row = next(row for row in ROWS if row["job"] == "resnet56-smallest-bytes1-20")
    measured = [100 * row[net]["measures"]["top1"] for net in ("original", "result")]
    assert told
    assert float(told[1]) == pytest.approx(measured[0], abs=0.006)
    assert float(told[2]) == pytest.approx(measured[1], abs=zoo.PLAY)


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
