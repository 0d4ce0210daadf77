"""Folders that version 0.1.0 wrote before the modules moved: every one still loads, verifies and fine-tunes.

They record their nets as `tests/support/tiny.py:net` and `kdna_convert.digits:digits_net`, relative to the repository.
The first is no net that a registry lists, and this machine did not write the folders: they need the caller's word.
"""

import shutil
from pathlib import Path

import pytest
import torch
from support.places import ROOT, TESTS

import kdna_convert as kdna

KINDS = sorted(path.name for path in (TESTS / "folders").iterdir())


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, seen from the repository's root."""
    monkeypatch.chdir(ROOT)
    return Path(shutil.copytree(TESTS / "folders" / request.param, tmp_path / request.param))


def inputs(folder: Path, count: int) -> torch.Tensor:
    shape = (1, 8, 8) if folder.name == "digits" else (3, 16, 16)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_there_is_a_folder_of_each_kind() -> None:
    assert KINDS == ["codebook", "coded", "digits", "fine-tuned", "routed", "shared", "shrunk"]


def test_an_old_folder_verifies(old: Path) -> None:
    checks = kdna.verify(old, trust_code=True)
    assert len(checks) >= 5
    assert [check for check in checks if not check.ok] == []


def test_an_old_folder_loads_derived_and_folded(old: Path) -> None:
    x = inputs(old, 4)
    with torch.no_grad():
        derived, folded = (kdna.load(old, folded=folded, trust_code=True)(x) for folded in (False, True))
    torch.testing.assert_close(folded, derived, rtol=1e-4, atol=1e-5)


def test_an_old_folder_fine_tunes(old: Path) -> None:
    tuned = kdna.finetune(old, trust_code=True, data=inputs(old, 24), steps=2, batch_size=8, device="cpu")
    report = tuned.report.finetune
    assert report.steps == 2
    assert report.trained > 0
    assert all(loss > 0 for loss in report.losses)
