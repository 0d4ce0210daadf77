"""The public names of the package."""

import importlib
from pathlib import Path

import pytest

import kdna_convert


def test_no_module_of_the_root_has_a_public_name() -> None:
    roots = {path.stem for path in Path(kdna_convert.__file__).parent.iterdir()}
    assert not roots & set(kdna_convert._HOME)


@pytest.mark.parametrize("name", kdna_convert._HOME)
def test_a_verb_stays_a_verb_once_its_file_is_imported(name: str) -> None:
    home = importlib.import_module(f"kdna_convert.{kdna_convert._HOME[name]}")
    assert getattr(kdna_convert, name) is getattr(home, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="colvolve"):
        _ = kdna_convert.colvolve


def test_every_public_name_is_listed_and_documented() -> None:
    public = [name for name in dir(kdna_convert) if not name.startswith("_")]
    assert set(kdna_convert._HOME) < set(public)
    assert all(getattr(kdna_convert, name).__doc__ for name in public)
