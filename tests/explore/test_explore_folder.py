"""A converted folder as MODEL: its original, recipe and plan are the start, and code needs the user's word."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import kdna

import kdna_convert
from kdna_convert.api.explore import explore
from kdna_convert.core.errors import KdnaError
from kdna_convert.explore import server
from kdna_convert.explore.session import SteeringSession


def test_a_folder_begins_with_its_original_recipe_and_plan(folder: Path, images: Path) -> None:
    opened = kdna_convert.open_folder(folder)
    made = explore(str(folder), data=str(images))
    assert made.model == opened.plan.model.name
    assert made.recipe.text == opened.recipe
    assert made.folder == opened.plan
    plan = SteeringSession(made).plan
    assert plan is not None
    assert plan.planned.params <= opened.plan.planned.params
    assert plan.original == opened.plan.original


def test_a_strangers_folder_runs_no_code(
    folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(KdnaError, match="KD611"):
        explore(str(folder), data=str(images))
    assert explore(str(folder), data=str(images), trust_code=True).folder is not None


def test_another_recipe_takes_the_place_of_the_folders(
    folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SteeringSession] = []
    monkeypatch.setattr(server, "find_spec", lambda name: name)
    monkeypatch.setattr(server, "serve", lambda session, place, ready: seen.append(session))
    few = ("--set", "calibration.images=30", "--set", "calibration.heldout=20")
    for given in ((), ("-r", "lowrank", *few), ("--set", "budget.params=0.7")):
        done = kdna("explore", folder, "--data", images, "--no-open", *given)
        assert done.exit_code == 0, done.stderr
    own, other, changed = (session.exploration.recipe for session in seen)
    assert own.text == kdna_convert.open_folder(folder).recipe
    assert other.scheme == "lowrank"
    assert changed.budget is not None
    assert (changed.budget.params, changed.scheme) == (0.7, own.scheme)
