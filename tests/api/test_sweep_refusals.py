"""A sweep refuses what it cannot use before the work, does again what was damaged, and mixes with no other folder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.command import kdna
from support.places import ROOT

import kdna_convert
from kdna_convert.api.sweeping.execution import Outcome
from kdna_convert.api.sweeping.rows import FILE, append_row, is_done, overwrites, read_rows, row_of
from kdna_convert.api.sweeping.tasks import PlannedJob, planned_jobs
from kdna_convert.cli.commands.sweep import SweepFlags
from kdna_convert.cli.report.sweep import live_table
from kdna_convert.core.errors import FolderError, ModelError, RecipeError
from kdna_convert.core.specs import required
from kdna_convert.core.sweep_result import Measured, SweepRow
from kdna_convert.inputs.grid_reading import load_grid, parse_grid
from kdna_convert.inputs.models import load_model
from kdna_convert.network.folder.save import require_free

GRID = "{data: images, models: [%s], recipes: [lowrank], budgets: [{params: 0.5}]}"


def one(model: str, folder: Path) -> PlannedJob:
    (planned,) = planned_jobs(parse_grid(GRID % model).jobs, folder, 1, 0.0, "auto")
    return planned


def done(planned: PlannedJob, files: tuple[str, ...] = ("model.safetensors", "plan.json", "config.json")) -> SweepRow:
    """The row of the job, whose folder has these files."""
    folder = required(planned.task.output)
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("here")
    text = {"job": planned.job.name, "net": "net", "recipe": "lowrank", "budget": "params 0.5", "command": "kdna"}
    return SweepRow(
        **text, seed=None, state="done", mark=planned.mark, result=Measured(1, 1), sums=dict.fromkeys(files[:-1], "")
    )


@pytest.mark.parametrize("text", ["import sys\nsys.exit(0)\n", "def net():\n    raise SystemExit(3)\n"])
def test_code_that_ends_the_program_is_an_error_of_its_net(text: str, tmp_path: Path) -> None:
    (tmp_path / "quits.py").write_text(text)
    with pytest.raises(ModelError, match=r"KD302: .*quits\.py ends the program"):
        load_model(f"{tmp_path}/quits.py:net")


def test_changed_code_of_a_net_makes_its_job_missing(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("width = 16")
    first = one(f"'{code}:net'", tmp_path)
    assert one(f"'{code}:net'", tmp_path).mark == first.mark
    code.write_text("width = 32")
    assert one(f"'{code}:net'", tmp_path).mark != first.mark


def test_a_foreign_folder_in_a_jobs_place_is_to_be_moved_since_a_sweep_has_no_force(tmp_path: Path) -> None:
    with pytest.raises(FolderError) as refused:
        require_free(tmp_path, force=False)
    planned = one("net", tmp_path / "sweep")
    row = row_of(planned, Outcome(2, err=f"kdna: error {refused.value}"))
    assert (row.state, row.code, row.message) == ("failed", "KD601", f"{tmp_path} exists already; move it away")


@pytest.mark.parametrize("name", ["plan.json", "config.json"])
def test_a_job_whose_folder_lost_a_file_is_done_again(name: str, tmp_path: Path) -> None:
    planned = one("net", tmp_path)
    row = done(planned)
    assert (is_done(planned, {row.job: row}), overwrites(planned, [row])) == (True, False)
    (required(planned.task.output) / name).unlink()
    assert (is_done(planned, {row.job: row}), overwrites(planned, [row])) == (False, True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("input_size: 1x32x32", "must be a size such as 224 or 3,224,224"),
        ("mean: half", "must be numbers such as 0.5,0.5,0.5"),
        ("std: '0.5,,1'", "must be numbers such as 0.5,0.5,0.5"),
        ("crop: midle", "must be 'center'"),
        ("crop_pct: 7", "less than or equal to 1"),
    ],
)
def test_a_wrong_option_of_a_net_is_named_when_the_grid_is_read(options: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=f"KD209: .*{reason}"):
        parse_grid(GRID % f"{{model: net, {options}}}")


@pytest.mark.parametrize(
    "options", ["mean: 0.5", "mean: '0.5, .5,1e-1'", "input_size: 224", "input_size: '3,32,32'", "std: 1 1 1"]
)
def test_right_options_of_a_net_are_taken_as_they_are_written(options: str) -> None:
    (job,) = parse_grid(GRID % f"{{model: net, {options}}}").jobs
    key, value = options.split(": ")
    assert job.net.flags == [f"--{key.replace('_', '-')}", value.strip("'")]


def test_a_sweep_mixes_with_no_other_folder_and_overwrites_no_file(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID % "none.py:net")
    for place, code in ((tmp_path, "KD601"), (grid, "KD604"), (grid / "below", "KD604")):
        with pytest.raises(FolderError, match=f"{code}: {place}"):
            kdna_convert.sweep(grid, output=place)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_what_cannot_be_read_or_made_is_told_and_costs_no_row(tmp_path: Path) -> None:
    grid, out = tmp_path / "grid.yaml", tmp_path / "sweep"
    grid.write_text(GRID % "'kdna:digits'")
    row = done(one("'kdna:digits'", out))
    append_row(out, row)
    (out / "cache").write_text("a file")
    grid.write_text(grid.read_text().replace("0.5", "0.6").replace("lowrank", "{recipe: balanced}"))
    with pytest.raises(FolderError, match=r"KD604: .*cache/digits could not be written"):
        kdna_convert.sweep(grid, output=out)
    assert read_rows(out) == [row]
    (out / FILE).unlink()
    (out / FILE).mkdir()
    with pytest.raises(FolderError, match=rf"KD601: .*{FILE} cannot be read: .*; move it away"):
        kdna_convert.sweep(grid, output=out)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "tpu"), "none of auto, cpu, cuda"),
        (("--address", "127.0.0.1:9"), "is for --on ray"),
        (("--slurm", "slurm_partition=gpu"), "is for --on slurm"),
        (("--on", "ray", "--jobs", "2"), "is for --on local"),
    ],
)
def test_an_option_that_has_no_effect_is_a_usage_error(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    refused = kdna("sweep", ROOT / "examples" / "sweep.yaml", "-o", tmp_path / "out", *options)
    assert refused.exit_code == 2
    assert told in " ".join(refused.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_setting_of_slurm_is_read_as_yaml_and_a_time_as_it_is_written() -> None:
    given = ("slurm_time=2:00:00", "slurm_time=1-12:30", "timeout_min=90", "slurm_setup=[module load cuda]")
    read = [SweepFlags(on="slurm", slurm=[text]).arguments["slurm"] for text in given]
    assert [[*each.values()] for each in read] == [["2:00:00"], ["1-12:30"], [90], [["module load cuda"]]]


def test_the_example_has_the_bundled_net_at_three_sizes_by_each_recipe() -> None:
    jobs = load_grid(ROOT / "examples" / "sweep.yaml").jobs
    assert {job.net.model for job in jobs} == {"kdna:digits"}
    assert len({job.budget.text for job in jobs}) == 3
    assert len(jobs) == 3 * len({job.recipe.name for job in jobs})


def test_the_live_table_tells_what_is_done_runs_and_waits(tmp_path: Path) -> None:
    row = done(one("net", tmp_path))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(live_table({"net": 3}, [row, replace(row, state="failed")], {("net", "other job"): 2.0}, 9.0))
    shown = console.export_text()
    assert "net" in shown
    assert "other job" in shown
