"""The benchmarks of whole commands: what a command cost, failures, rows, and the images of two sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.benchmarks import benchmark
from support.pictures import paint
from support.places import ROOT

commands = benchmark("commands")
imagenet = benchmark("imagenet")
real_size = benchmark("real_size")
task_nets = benchmark("task_nets")


def test_the_cost_of_a_command_has_the_peak_memory_of_its_process() -> None:
    # Of a process that is smaller than this one, whose memory counts as that of each command that it starts.
    script = (
        "import sys, commands\n"
        "_, small = commands.run([sys.executable, '-c', 'print(1)'])\n"
        "_, large = commands.run([sys.executable, '-c', 'x = bytearray(200_000_000)'])\n"
        "print(small.cpu_seconds > 0, large.peak_bytes - small.peak_bytes > 190_000_000, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_a_command_that_fails_is_named_by_its_last_line_and_one_that_takes_too_long_is_ended() -> None:
    with pytest.raises(commands.CommandError, match="the reason"):
        commands.run([sys.executable, "-c", "import sys; sys.exit('more\\nthe reason')"])
    with pytest.raises(commands.CommandError, match="out of time"):
        commands.run([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.1)


def test_rows_are_read_as_they_were_appended(tmp_path: Path) -> None:
    file = tmp_path / "results" / "rows.jsonl"
    assert commands.rows(file) == []
    for number in range(2):
        commands.append(file, {"task": "a", "seconds": number})
    assert [row["seconds"] for row in commands.rows(file)] == [0, 1]


def test_two_calibration_sets_are_one_folder_of_all_their_images(tmp_path: Path) -> None:
    for place in ("calibration/cat", "calibration/dog", "calibration_diverse"):
        paint(tmp_path / "imagenet" / place / "image.png", 0)
    folder, count = imagenet.linked(tmp_path, "both", tmp_path / "both")
    assert count == 3
    assert len({file.resolve() for part in folder.iterdir() for file in part.resolve().rglob("*.png")}) == 3
    assert imagenet.linked(tmp_path, "diverse", tmp_path / "one")[1] == 1


def test_a_table_shows_medians_beside_the_goals_and_says_what_failed(tmp_path: Path) -> None:
    first, second, *_ = real_size.tasks(tmp_path)
    cost = [{"task": first.name, "seconds": value, "cpu_seconds": 60, "peak_gb": 2.04} for value in (60, 120, 600)]
    lines = real_size.summary([first, second], [*cost, {"task": second.name, "failed": "no memory"}]).splitlines()
    assert lines[2] == "| ResNet-18, balanced 50% | 2.0 min | 1.0 min | 2.0 GB | 4 min, 3 GB |"
    assert "| no memory |" in lines[3]


def test_growth_has_a_cell_for_each_size_that_was_measured_and_draws_them(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    growth = benchmark("growth")
    sizes = [*growth.sizes("width")]
    cost = {"seconds": 2.0, "cpu_seconds": 77.4, "peak_gb": 0.52}
    found = [{"recipe": "balanced", **vars(size), **cost} for size in sizes]
    lines = growth.summary(found).splitlines()
    assert lines[2] == "| start-up |  | 77 | 0.5 |  |  |"
    assert sum("| 77 |" in line for line in lines) == len(sizes) + 3  # the unchanged size is on the other axes too
    growth.draw(found, tmp_path / "growth.svg")
    assert "calibration images" in (tmp_path / "growth.svg").read_text()


def test_a_net_of_another_task_has_the_last_outcome_of_each_stage_and_the_code_of_a_refusal() -> None:
    done = [
        {"net": "fcos", "stage": stage, "outcome": "ok", "cpu_seconds": 2, "peak_gb": 1} for stage in task_nets.STAGES
    ]
    found = [{**done[0], "outcome": "traceback"}, *done[:-1], {**done[-1], "outcome": "refused", "code": "KD312"}]
    (line,) = [line for line in task_nets.summary(found).splitlines() if line.startswith("| fcos ")]
    assert line == f"| fcos |{' ok |' * (len(task_nets.STAGES) - 1)} KD312 | 22 | 1.0 |"
    fcos, other = (net for net in task_nets.NETS if net.name in ("fcos", "raft_small"))
    assert task_nets.done(fcos, found)
    assert not task_nets.done(other, found)
