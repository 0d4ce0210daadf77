"""The results from nothing: every file of results has its command, and a comparison's rows become tables."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import benchmark

everything = benchmark("everything")
compare = benchmark("compare")


def test_every_recorded_file_is_measured_by_a_step_or_named_with_what_it_needs() -> None:
    named = [step.rows for step in everything.MEASURED] + ["zoo.json", *everything.OTHERS]
    found = {path.name for path in everything.RESULTS.glob("*.json*")}
    assert [name for name in found if not any(fnmatch(name, pattern) for pattern in named)] == []
    assert [pattern for pattern in everything.OTHERS if not any(fnmatch(name, pattern) for name in found)] == []


@pytest.mark.parametrize("step", everything.MEASURED, ids=lambda step: " ".join(step.command))
def test_a_step_runs_a_benchmark_that_takes_its_options(step: Any, tmp_path: Path) -> None:
    script = everything.HERE / step.command[0]
    source = script.read_text(encoding="utf-8")
    options = [part for part in step.command if part.startswith("--")]
    assert not [option for option in (*options, "--results") if f'"{option}"' not in source]
    command = everything.argument_list(step, {name: tmp_path / name for name in ("data", "sweep", "rows")}, "python")
    assert command[-2:] == ["--results", str(tmp_path / "rows" / step.rows)]
    assert not [part for part in command if "{" in part]


def test_a_folder_that_a_step_takes_is_of_a_job_of_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    from kdna_convert.inputs.grid_reading import load_grid

    monkeypatch.setenv("DATA", "/data")
    jobs = {job.name for job in load_grid(everything.HERE / "zoo.yaml").jobs}
    taken = {part.partition("jobs/")[2] for step in everything.MEASURED for part in step.command if "jobs/" in part}
    taken |= {task.job for task in benchmark("finetune_gains").TUNED}
    assert taken
    assert taken <= jobs


def test_only_a_file_whose_benchmarks_all_ended_well_takes_the_recorded_ones_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other, alone = (everything.Step(name, (script,)) for name, script in (("a", "1"), ("a", "2"), ("b", "3")))
    monkeypatch.setattr(everything, "MEASURED", (one, other, alone))
    monkeypatch.setattr(everything, "RESULTS", tmp_path / "recorded")
    (tmp_path / "recorded").mkdir()
    for name in "ab":
        (tmp_path / name).write_text("new")
    assert everything.take([one, alone], [one, other, alone], tmp_path) == ["a"]
    assert [path.name for path in (tmp_path / "recorded").iterdir()] == ["b"]
    assert everything.take([one, other], [one, other], tmp_path) == []


def test_a_failed_row_is_no_good_end_though_the_benchmark_ends_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(everything, "HERE", tmp_path)
    text = "import sys, json; open(sys.argv[-1], 'a').write(json.dumps({row}) + chr(10))"
    (tmp_path / "good.py").write_text(text.format(row="{'top1': 1}"))
    (tmp_path / "bad.py").write_text(text.format(row="{'failed': 'out of memory'}"))
    for script, ended in (("good.py", True), ("bad.py", False), ("good.py", True)):
        assert everything.run(everything.Step("rows.jsonl", (script,)), {"rows": tmp_path}, sys.executable) is ended


def row(peer: str, title: str, top1: float, share: float = 0.5) -> dict[str, Any]:
    rung = {"axis": "params", "share": share, "limit": 10}
    return {"net": "ResNet-20", "peer": peer, "title": title, "rung": rung, "top1": top1}


def test_the_better_of_a_tools_two_results_counts_at_each_size() -> None:
    found = [row("cp", "CP", 0.5), row("cp", "CP +BN", 0.7), row("cp", "CP", 0.4, 0.25), row("cp", "CP +BN", 0.3, 0.25)]
    assert [each["top1"] for each in compare.better(found)] == [0.7, 0.4]


def test_a_tool_without_a_result_leaves_its_cell_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    original = {**row("original", "original", 0.9), "rung": None}
    failed: dict[str, Any] = {**row("cp", "tensorly CP", 0.0), "top1": None}
    monkeypatch.setattr(compare, "recorded", lambda: [original, row("kdna", "kdna", 0.8), failed])
    *_, own, other = compare.by_parameters(["ResNet-20"]).splitlines()
    assert own == "| kdna, `accurate` | 80.00 |"
    assert other == "| tensorly CP |  |"


def test_the_nets_of_the_comparison_are_fed_as_their_baselines_say(tmp_path: Path) -> None:
    for name in compare.NETS:
        command = compare.command(name, tmp_path)
        assert command[:2] == ["compare", compare.BASELINES[name].model]
        assert ("--mean" in command) == (name in compare.RIGHT_INPUTS)
