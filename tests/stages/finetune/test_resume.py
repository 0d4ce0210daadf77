"""A fine-tune that is stopped, killed or resumed, on a full disk, or with a guard."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command import kdna
from support.fine_tuning import KilledError, killed_and_resumed, run, same, with_basis
from support.shards import UNEVEN, noise, webdataset
from support.tiny import SIZE, net
from torch import nn

from kdna_convert.cli.app import main
from kdna_convert.core.errors import FolderError, GuardError
from kdna_convert.core.measurements import Divergence
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import open_images
from kdna_convert.stages.finetune import RunFiles
from kdna_convert.stages.finetune import training_state as state_file
from kdna_convert.stages.finetune.engine import Engine
from kdna_convert.stages.finetune.stopping import stopping
from kdna_convert.stages.finetune.training_state import FILE, read


@pytest.mark.parametrize("until", [1, 5, 7, 11])
@pytest.mark.parametrize("options", [{}, {"opt": "lion"}, {"precision": "fp16"}], ids=["adamw", "lion", "fp16"])
def test_a_killed_run_resumes_to_the_bit(
    until: int, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**20, growth_interval=3))
    killed_and_resumed(tmp_path / "work", until, **options)


def test_a_killed_run_from_a_stream_resumes_to_the_bit(tmp_path: Path) -> None:
    data = webdataset(tmp_path / "shards", [noise(seed) for seed in range(sum(UNEVEN))], UNEVEN)
    config = DataConfig((3, SIZE, SIZE), crop_pct=1.0)

    def nets() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        original = net().eval()
        return with_basis(original, ("blocks.0.conv1", "blocks.1.conv2"), rank=4), original

    options: dict[str, Any] = {"nets": nets, "noise": lambda *_, **__: open_images(data, config), "config": config}
    with pytest.raises(KilledError):
        run(tmp_path / "work", until=7, **options)
    assert same(run(tmp_path / "work", resume=True, **options), run(None, **options))


def test_a_stopped_run_has_written_its_last_step(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 7:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 8 of 12"):
        run(tmp_path, progress=stop)
    assert signal.getsignal(signal.SIGINT) is handler
    assert same(run(tmp_path, resume=True), run(None))


def test_a_second_signal_stops_at_once() -> None:
    with stopping() as request:
        signal.raise_signal(signal.SIGTERM)
        assert request.received
        with pytest.raises(KeyboardInterrupt, match="at once"):
            signal.raise_signal(signal.SIGINT)


def test_without_resume_or_without_a_state_a_run_starts_at_step_1(tmp_path: Path) -> None:
    straight = run(None)
    with pytest.raises(KilledError):
        run(tmp_path, until=7)
    assert same(run(tmp_path), straight)
    assert same(run(tmp_path / "nothing", resume=True), straight)


def test_a_foreign_or_damaged_state_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(FolderError, match=r"KD610.*leave out --resume"):
        read(tmp_path, "another")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FolderError, match=r"KD610.*leave out --resume"):
        read(tmp_path, "mine")


def test_a_full_disk_leaves_the_last_state_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    true = state_file.save_tensors

    def full(*arguments: Any) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        true(*arguments)
        written.append(arguments)

    monkeypatch.setattr(state_file, "save_tensors", full)
    with pytest.raises(FolderError, match=r"KD604.*No space left"):
        run(tmp_path)
    left = read(tmp_path, "mine")
    assert left is not None
    assert left.numbers.step == 5


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    work = tmp_path / "work"
    with pytest.raises(KilledError):
        run(work, until=8, files=RunFiles(work, False, "mine", log))
    run(work, files=RunFiles(work, True, "mine", log))
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 13))


# --- by the command line


SMALL = ("--batch-size", "8", "--steps", "6", "--save-every", "2")


def test_a_guard_that_fails_exits_3_and_keeps_the_best(
    images: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned"
    far = Divergence(agreement=0.9, kl=0.1, logit_error=0.1, images=12)
    monkeypatch.setattr(
        sys.modules["kdna_convert.stages.finetune.validation"], "divergence_from", lambda *_: lambda net: far
    )
    done = kdna("finetune", folder, "--data", images, "-o", out, *SMALL, "--max-drop", "9.9")
    assert done.exit_code == 3
    assert "KD801: 10.00 % of the answers" in done.stderr
    assert kdna("verify", out).exit_code == 0
    again = tmp_path / "again"
    assert kdna("finetune", folder, "--data", images, "-o", again, *SMALL, "--max-drop", "10.1").exit_code == 0


def test_an_interrupted_run_is_not_resumed_with_other_settings(
    images: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    command = ("finetune", folder, "--data", images, "-o", out)
    monkeypatch.setattr(sys, "argv", ["kdna", *map(str, command), *SMALL])
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda *given: (step(*given), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(Engine, "step", step)
    assert not out.exists()
    other = kdna(*command, *SMALL, "--steps", "7", "--resume")
    assert other.exit_code == 2
    assert "KD610" in other.stderr
    assert (tmp_path / "tuned.part" / FILE).exists()
    assert kdna(*command, *SMALL).exit_code == 0
    assert not (tmp_path / "tuned.part").exists()


KILLED_AT_STEP_8 = """
    import itertools, os, signal
    from kdna_convert.cli.app import main
    from kdna_convert.stages.finetune.engine import Engine

    counted, step = itertools.count(1), Engine.step

    def step_or_die(*given):
        step(*given)
        if next(counted) == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    Engine.step = step_or_die
    main()
"""


def test_sigkill_loses_only_the_steps_since_the_last_state(images: Path, folder: Path, tmp_path: Path) -> None:
    command = ("finetune", folder, "--data", images, *SMALL, "--steps", "12", "--save-every", "5")
    log = tmp_path / "log.jsonl"
    code = textwrap.dedent(KILLED_AT_STEP_8)
    arguments = map(str, [*command, "-o", tmp_path / "killed", "--jsonl", log])
    killed = subprocess.run([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 8))
    assert kdna(*command, "-o", tmp_path / "killed", "--resume", "--jsonl", log).exit_code == 0
    assert kdna(*command, "-o", tmp_path / "straight").exit_code == 0
    tensors = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "straight")]
    assert tensors[0] == tensors[1]
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 13))


def test_a_finished_fine_tune_leaves_no_state(images: Path, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert kdna("finetune", copy, "--data", images, "-o", tmp_path / "out", *SMALL).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


def test_a_guard_without_held_back_images_fails(folder: Path) -> None:
    from kdna_convert import finetune as verb
    from kdna_convert.api.finetune import hold

    tuned = verb(folder, data=torch.randn(4, 3, 16, 16), steps=1)
    with pytest.raises(GuardError, match=r"KD801.*no images were held out"):
        hold(tuned, 5.0)
