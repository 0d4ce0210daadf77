"""What Slurm or submitit refuses is one line with KD615 and a way out. The commands of Slurm are scripts here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import NET, kdna

import kdna_convert
from kdna_convert.api.sweeping.execution import SweepTask
from kdna_convert.api.sweeping.rows import FILE
from kdna_convert.api.sweeping.slurm_queue import SlurmQueue
from kdna_convert.core.errors import FolderError

pytest.importorskip("submitit")
REFUSES = """echo "sbatch: error: invalid partition specified: nosuch" >&2
echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
exit 1
"""
# The first job is taken, and never ends; the next one is refused.
TAKES_ONE = f"""if [ -e "$0.taken" ]; then
{REFUSES}fi
touch "$0.taken"
echo "Submitted batch job 17"
"""
Commands = Callable[..., Path]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Puts scripts on PATH, and nothing else of Slurm: by name, what a shell runs. Returns their folder."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")

    def make(**scripts: str) -> Path:
        for name, script in scripts.items():
            (place / name).write_text(f"#!/bin/sh\n{script}")
            (place / name).chmod(0o755)
        return place

    return make


def task(name: str, folder: Path) -> SweepTask:
    return SweepTask(name, "net", ("plan", "none.py:net"), folder / "cache")


def test_a_job_that_sbatch_refuses_is_one_line_with_what_slurm_said(
    commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(sbatch=REFUSES, srun="")
    queue = SlurmQueue(tmp_path / "out", {"slurm_partition": "nosuch"})
    with pytest.raises(FolderError) as refused:
        queue.start(task("one", tmp_path))
    told = str(refused.value)
    assert told.startswith("KD615: Slurm refused the job one (sbatch: error: invalid partition specified: nosuch ")
    assert "run the same command again" in told
    assert "\n" not in told
    assert capsys.readouterr().err == ""
    assert not queue.running


def test_a_refusal_without_a_word_has_the_exit_code_and_an_answer_without_a_job_is_refused(
    commands: Commands, tmp_path: Path
) -> None:
    commands(sbatch="exit 7\n", srun="")
    with pytest.raises(FolderError, match=r"KD615: Slurm refused the job one \(.*exit status 7"):
        SlurmQueue(tmp_path / "out", {}).start(task("one", tmp_path))
    commands(sbatch="echo maintenance\n")
    with pytest.raises(FolderError, match=r"KD615: Slurm refused the job one \(.*maintenance"):
        SlurmQueue(tmp_path / "out", {}).start(task("one", tmp_path))


def test_a_refusal_in_mid_sweep_cancels_what_runs(commands: Commands, tmp_path: Path) -> None:
    place = commands(sbatch=TAKES_ONE, srun="", scancel='echo "$1" >> "$0.log"\nexit 1\n')
    queue = SlurmQueue(tmp_path / "out", {})
    queue.start(task("one", tmp_path))
    with pytest.raises(FolderError, match="KD615: Slurm refused the job two"):
        queue.start(task("two", tmp_path))
    queue.stop()
    assert (place / "scancel.log").read_text() == "17\n"
    assert not queue.running


def test_a_sweep_that_slurm_refuses_ends_with_one_line_and_keeps_its_rows(
    commands: Commands, tmp_path: Path, images: Path
) -> None:
    (tmp_path / "r.yaml").write_text("{scheme: basis, calibration: {images: 30, heldout: 20}, repair: []}")
    grid, out = tmp_path / "grid.yaml", tmp_path / "sweep"
    rest = f"data: {images}\nmodels: [{{model: '{NET}', name: tiny}}]\nbudgets: [{{params: 0.7}}]\nseeds: [0, 1]\n"
    grid.write_text(f"recipes: [{{recipe: {tmp_path / 'r.yaml'}, name: plain}}]\n{rest}")
    kdna_convert.sweep(grid, output=out, only="*-seed0")
    rows = (out / FILE).read_text()
    commands(sbatch=REFUSES, srun="")
    refused = kdna("sweep", grid, "-o", out, "--on", "slurm", "-q")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("kdna: error KD615: Slurm refused the job ")
    assert len(refused.stderr.splitlines()) == 1
    assert (out / FILE).read_text() == rows
    assert (out / "summary.html").is_file()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"timeout_min": "abc"}, r'KD615: --slurm timeout_min=abc: .*Parameter "timeout_min" expected type'),
        (
            {"partitoin": "gpu"},
            r"KD615: --slurm partitoin: not an option of .* slurm_partition=gpu \(Para",
        ),
        ({"slurm_partitoin": "gpu"}, r"KD615: --slurm slurm_partitoin: .*; write it as slurm_partition=gpu"),
        ({"zzz": 1}, r"KD615: --slurm zzz: not an option of .*; those of Slurm begin with slurm_"),
        ({"slurm_setup": "abc"}, r"KD615: --slurm slurm_setup=abc: submitit does not take this value"),
        ({"nodes": 2}, r"KD615: --slurm nodes=2: a job runs once, on one node"),
    ],
)
def test_a_setting_that_submitit_does_not_take_is_named(
    commands: Commands, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    commands(sbatch="", srun="")
    with pytest.raises(FolderError, match=told) as refused:
        SlurmQueue(tmp_path / "out", settings)
    assert "NameError" not in str(refused.value)


def test_a_machine_with_a_part_of_slurm_only_is_refused(commands: Commands, tmp_path: Path) -> None:
    commands(sbatch="")
    with pytest.raises(FolderError, match="KD615: --on slurm: this machine has no srun; start the sweep on a node"):
        SlurmQueue(tmp_path / "out", {})
