"""The page of a folder compares its layers and opens its families with the nets that are available."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from kdna_convert.api.report import report
from kdna_convert.core.errors import FolderError

FOLDERS = Path(__file__).parent.parent / "folders"


@pytest.mark.parametrize("name", ["digits", "codebook", "shrunk", "routed"])
def test_the_original_is_compared_and_a_family_is_shown_before_and_after(name: str) -> None:
    text = report(FOLDERS / name, trust_code=True).html
    assert "Compared by the weights of the original alone" in text
    assert text.count("<figcaption>before: ") == text.count("<figcaption>difference: ") > 0


def test_without_the_original_the_converted_net_is_compared_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdna_convert.api.report.original_from", lambda *_: None)
    text = report(FOLDERS / "digits").html
    assert "Compared by the weights of the converted net alone" in text
    assert "The kernels before are missing" in text
    assert "<figcaption>after: " in text
    assert "<figcaption>before: " not in text


def test_a_folder_whose_code_may_not_run_says_so_in_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> NoReturn:
        raise FolderError("KD611", "it names code")

    monkeypatch.setattr("kdna_convert.api.report.opened", refused)
    text = report(FOLDERS / "digits").html
    assert "The layers were not compared: KD611: it names code." in text
    assert "The tensors were not opened: KD611: it names code." in text
    assert "<img" not in text


def test_a_conversion_without_families_still_compares_its_layers() -> None:
    text = report(FOLDERS / "coded", trust_code=True).html
    assert "Compared by the weights of the original alone" in text
    assert "No layer shares tensors with another" in text
    assert "colored by" not in text
