"""`sweep`: its order, what a killed one leaves, and what it says of jobs that fail."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.command import NET, kdna

import kdna_convert
from kdna_convert.api.sweeping.execution import KDNA, Execution, Outcome, SweepTask
from kdna_convert.api.sweeping.folder_lock import locked
from kdna_convert.api.sweeping.local_processes import LocalProcesses
from kdna_convert.api.sweeping.rows import FILE, _measures, append_row, current, overwrites, read_rows
from kdna_convert.api.sweeping.scheduler import run_tasks
from kdna_convert.api.sweeping.slurm_queue import SlurmQueue
from kdna_convert.api.sweeping.summary import as_csv
from kdna_convert.api.sweeping.tasks import PlannedJob, all_tasks, planned_jobs
from kdna_convert.core.errors import FolderError, RecipeError
from kdna_convert.core.measurements import Evaluation
from kdna_convert.core.sweep_result import Measured, SweepResult, SweepRow, front
from kdna_convert.inputs.grid_reading import parse_grid
from kdna_convert.inputs.sweep_grid import GridJob

KILLED = Outcome(-signal.SIGKILL)


def task(name: str, after: str | None = None, cores: int = 1, memory: int = 0) -> SweepTask:
    return SweepTask(name, "net", (), Path("cache"), None, after, cores, memory)


class Recorded:
    """An executor on which tasks end at once: `outcomes` are those of each task's tries, the rest end well."""

    def __init__(self, outcomes: dict[str, list[Outcome]] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.started: list[str] = []
        self.running: list[SweepTask] = []

    def has_room(self, task: SweepTask) -> bool:
        return len(self.running) < 2

    def start(self, task: SweepTask) -> None:
        self.started.append(task.name)
        self.running.append(task)

    def ended(self) -> Sequence[tuple[SweepTask, Outcome]]:
        first = self.running.pop(0)
        tries = self.outcomes.get(first.name, [])
        return [(first, tries.pop(0) if tries else Outcome(0))]

    def stop(self) -> None:
        self.running.clear()


def test_a_task_starts_when_the_one_before_it_has_ended_well_or_not() -> None:
    tasks = [task("late", after="first"), task("first"), task("other")]
    executor = Recorded({"first": [Outcome(2)]})
    ended = [each.name for each, _ in run_tasks(tasks, executor, 0)]
    assert executor.started == ["first", "other", "late"]
    assert sorted(ended) == ["first", "late", "other"]


def test_a_killed_task_is_tried_again_and_one_that_failed_by_itself_is_not() -> None:
    lost = Outcome(1, lost="the node was lost")
    executor = Recorded({"killed": [KILLED, lost], "wrong": [Outcome(2)], "hopeless": [KILLED] * 9})
    ended = {each.name: outcome for each, outcome in run_tasks([*map(task, executor.outcomes)], executor, 2)}
    assert {name: executor.started.count(name) for name in ended} == {"killed": 3, "wrong": 1, "hopeless": 3}
    assert (ended["killed"].exit_code, ended["hopeless"].killed) == (0, True)


def test_local_processes_keep_within_cores_and_memory_and_a_large_task_runs_alone() -> None:
    executor = LocalProcesses(cores=2, memory=100)
    assert executor.has_room(task("huge", cores=8, memory=10**9))
    executor.running["one"] = (task("one", memory=60), None)  # type: ignore[assignment]
    assert executor.has_room(task("fits", memory=40))
    assert not executor.has_room(task("too much memory", memory=41))
    assert not executor.has_room(task("too many cores", cores=2))


def test_a_command_that_is_killed_is_told_from_one_that_fails() -> None:
    failed = Execution(["explain", "none"], 1).wait()
    assert failed.exit_code == 2
    assert not failed.killed
    running = Execution(["explain", "KD101"], 1)
    running.process.kill()
    assert running.wait().killed


def test_only_one_sweep_writes_a_folder_also_while_a_process_of_a_dead_one_lives(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(FolderError, match="KD614"), locked(tmp_path):
        pass
    with locked(tmp_path) as held:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=held)
    try:
        with pytest.raises(FolderError, match="KD614"), locked(tmp_path):
            pass
    finally:
        child.communicate(b"\n")
    with locked(tmp_path):
        pass


def row(
    job: str, seed: int | None = None, score: float = 0.9, budget: str = "params 0.5", params: int = 50
) -> SweepRow:
    measures = {"top1": score, "agreement": 0.95}
    nets = {"original": Measured(100, 400, 10, {"top1": 0.92}), "result": Measured(params, 200, 10, measures)}
    return SweepRow(job, "net", "balanced", budget, seed, f"kdna run {job}", "mark", "done", **nets)


def test_rows_come_back_and_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    odd = "of a caf\u00e9,\u2028 two lines and a number that is none"
    rows = [row("one"), row("two", score=math.inf), replace(row("three"), message=odd)]
    append_row(tmp_path, rows[0])
    with (tmp_path / FILE).open("ab") as file:
        file.write('{"job": "caf\u00e9'.encode()[:-1])  # in the middle of a character
    for each in rows[1:]:
        append_row(tmp_path, each)
    assert read_rows(tmp_path) == rows


def test_a_row_without_labels_has_the_measures_against_the_original() -> None:
    sizes = {"images": 4, "params": 1, "bytes": 4, "macs": 1}
    image = Evaluation(None, None, agreement=None, kl=None, **sizes, from_original={"psnr": 41.0, "ssim": 0.9})
    assert _measures(image) == {"psnr": 41.0, "ssim": 0.9}
    labeled = Evaluation(None, None, agreement=0.99, kl=0.1, **sizes, measures={"miou": 0.9}, from_original={"miou": 1})
    assert _measures(labeled) == {"miou": 0.9, "agreement": 0.99, "kl": 0.1}


def planned(recipe: str = "balanced", original: float | None = None) -> PlannedJob:
    expected = "" if original is None else f", original: {{top1: {original}}}"
    text = f"models: [{{model: 'a.py:net', eval_data: x{expected}}}]"
    (job,) = parse_grid(f"{text}\nrecipes: [{recipe}]\nbudgets: [{{params: 0.5}}]\n").jobs
    (found,) = planned_jobs([replace_recipe_name(job)], Path("sweep"), 1, 0.0, "cpu")
    return found


def replace_recipe_name(job: GridJob) -> GridJob:
    """The job under one name, whatever its recipe: as if the recipe's file had changed."""
    return job.model_copy(update={"recipe": job.recipe.model_copy(update={"name": "same"})})


def test_a_changed_recipe_makes_a_job_missing_and_overwrites_its_folder_also_after_a_failure() -> None:
    before, after = planned("balanced"), planned("lowrank")
    assert (before.job.name, before.mark == after.mark) == (after.job.name, False)
    done = replace(row(before.job.name), mark=before.mark)
    failed = replace(done, mark=after.mark, state="failed", code="KD501", result=None)
    assert current([before], [done]) == {done.job: done}
    assert current([after], [done]) == {}
    assert [overwrites(after, rows) for rows in ([], [done], [done, failed])] == [False, True, True]
    assert not overwrites(before, [done])


def test_an_original_that_the_grid_names_later_is_held_against_rows_that_are_done() -> None:
    wrong, right, own = (planned(original=value) for value in (0.5, 0.92, None))
    done = replace(row(own.job.name), mark=own.mark)
    assert [current([each], [done])[done.job].code for each in (wrong, right, own)] == ["KD316", None, None]


def test_commands_name_each_option_once_and_calibrate_on_the_device_of_the_jobs() -> None:
    net = "{model: 'a.py:net', metric: 'm.py:f', data: images, eval_data: test}"
    (job,) = parse_grid(f"models: [{net}]\nrecipes: [balanced]\nbudgets: [{{params: 0.5}}]\n").jobs
    shared, run = all_tasks(planned_jobs([job], Path("out"), 1, 0.0, "cpu"), "cpu")
    assert run.words.count("--metric") == 1
    assert "--metric" not in shared.words
    assert [each.words[each.words.index("--device") + 1] for each in (shared, run)] == ["cpu", "cpu"]
    assert (run.after, shared.output) == (shared.name, None)


def test_jobs_that_differ_in_the_seed_are_one_point_with_their_spread() -> None:
    rows = (row("a", 0, 0.90), row("b", 1, 0.92), row("c", 0, 0.5, "params 0.1", 10))
    points = SweepResult("grid.yaml", rows).points
    assert [(point.seeds, round(point.score or 0, 4), round(point.spread, 4)) for point in points] == [
        (2, 0.91, 0.02),
        (1, 0.5, 0.0),
    ]
    assert points[0].kept == (0.5, 0.5)
    assert points[0].original == 0.92


def test_the_front_has_no_point_that_a_smaller_one_beats() -> None:
    rows = [row(str(n), score=score, budget=f"params {n}", params=n) for n, score in ((10, 0.5), (20, 0.4), (30, 0.8))]
    points = SweepResult("grid.yaml", tuple(rows)).points
    assert [point.params for point in front(points, "params")] == [10, 30]


def test_the_table_has_a_line_for_each_row_and_its_measures(tmp_path: Path) -> None:
    failed = SweepRow("bad", "net", "balanced", "params 0.5", None, "kdna run", "mark", "failed", "KD501", "too small")
    header, first, second = as_csv(SweepResult("grid.yaml", (row("one"), failed))).splitlines()
    assert {"job", "top1", "original_top1", "code", "command"} <= {*header.split(",")}
    assert first.startswith("one,net,balanced,params 0.5,,done,,50,200,10,0.95,0.92,0.9")
    assert second.startswith("bad,net,balanced,params 0.5,,failed,KD501")


@pytest.fixture
def grid(tmp_path: Path, images: Path) -> Path:
    """The tiny net at two sizes by a recipe that shares, and a net that is not there at one."""
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("{scheme: basis, calibration: {images: 30, heldout: 20}, repair: []}")
    file = tmp_path / "grid.yaml"
    file.write_text(
        f"data: {images}\neval_data: {images}\n"
        f"models: ['{NET}', {{model: 'none.py:net', name: none, budgets: [{{params: 0.7}}]}}]\n"
        f"recipes: [{recipe}]\nbudgets: [{{params: 0.7}}, {{params: 0.6}}]\n"
    )
    return file


def test_a_sweep_calibrates_once_and_does_again_only_what_failed_or_changed(grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    result = kdna_convert.sweep(grid, output=out, jobs=2)
    assert [(row.job, row.code) for row in result.rows] == [
        ("net-quick-params0.7", None),
        ("net-quick-params0.6", None),
        ("none-quick-params0.7", "KD302"),
    ]
    assert [row.state for row in result.rows] == ["done", "done", "failed"]
    assert len([*(out / "cache" / "net").glob("moments-*")]) == len([*(out / "cache" / "net").glob("errors-*")]) == 1
    first = result.rows[0]
    assert kdna_convert.load(out / "jobs" / first.job) is not None
    assert {"top1", "agreement"} <= {*(first.result or Measured(0, 0)).measures}
    assert "none-quick-params0.7" in (out / "summary.html").read_text(encoding="utf-8")
    lines = len((out / FILE).read_text().splitlines())

    grid.write_text(grid.read_text().replace("{params: 0.6}", "{params: 0.55}"))
    again = kdna_convert.sweep(grid, output=out, jobs=2)
    assert [row.state for row in again.rows] == ["done", "done", "failed"]
    assert again.rows[0] == first
    assert len((out / FILE).read_text().splitlines()) == lines + 2


def test_an_original_that_does_not_score_what_the_grid_says_is_a_failed_row(grid: Path, tmp_path: Path) -> None:
    text = grid.read_text().replace(f"'{NET}'", f"{{model: '{NET}', original: {{top1: 0.987}}}}")
    models = next(line for line in text.splitlines() if line.startswith("models"))
    text = text.replace(models, models.partition(", {model: 'none")[0] + "]").replace(", {params: 0.6}", "")
    grid.write_text(text.replace("scheme: basis", "scheme: dense"))
    done = kdna("sweep", grid, "-o", tmp_path / "sweep", "--json", "-q")
    assert done.exit_code == 3, done.stderr
    (failed,) = json.loads(done.stdout)["rows"]
    assert (failed["state"], failed["code"]) == ("failed", "KD316")
    assert "the grid says 0.987" in failed["message"]


def test_slurm_runs_a_task_by_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    queue = SlurmQueue(tmp_path, {"timeout_min": 5}, cluster="local")
    wrong = SweepTask("wrong", "net", ("plan", "none.py:net"), tmp_path / "cache")
    queue.start(wrong)
    until = time.monotonic() + 120
    found: Sequence[tuple[SweepTask, Outcome]] = ()
    while not found and time.monotonic() < until:
        found = queue.ended()
    ((ended, outcome),) = found
    assert (ended, outcome.exit_code, outcome.lost) == (wrong, 2, None)
    assert "KD" in outcome.err


def test_a_cluster_that_cannot_be_used_is_refused_before_any_work(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FolderError, match="KD615: --on slurm"):
        kdna_convert.sweep(grid, output=tmp_path / "a", on="slurm")
    with pytest.raises(FolderError, match=r"KD615: no Ray cluster answers at 127\.0\.0\.1:9"):
        kdna_convert.sweep(grid, output=tmp_path / "b", on="ray", address="127.0.0.1:9")


def test_a_large_grid_is_run_only_when_it_is_asked_for(grid: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="KD210: the grid has 3 jobs, and at most 2"):
        kdna_convert.sweep(grid, output=tmp_path / "sweep", most=2)
    grid.write_text(grid.read_text() + f"seeds: [{', '.join(map(str, range(300)))}]\n")
    refused = kdna("sweep", grid, "-o", tmp_path / "sweep")
    assert refused.exit_code == 2
    assert "KD210: the grid has 900 jobs" in refused.stderr
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_prints_the_commands_and_writes_nothing(grid: Path, tmp_path: Path) -> None:
    shown = kdna("sweep", grid, "-o", tmp_path / "sweep", "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.count("kdna run") == 3
    assert not (tmp_path / "sweep").exists()


def test_a_terminated_sweep_ends_its_jobs_and_leaves_the_folder_free(grid: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    out = tmp_path / "sweep"
    process = subprocess.Popen([*KDNA, "sweep", str(grid), "-o", str(out), "-q"], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    children: list[Any] = []
    while not children and time.monotonic() < until:
        time.sleep(0.1)
        children = psutil.Process(process.pid).children()
    process.terminate()
    _, told = process.communicate(timeout=120)
    assert children
    _, left = psutil.wait_procs(children, timeout=3)  # an ended one is there until the system collects it
    assert not left
    assert process.returncode == 130, told
    assert "Run the same command again" in told
    with locked(out):  # no job holds it
        pass
