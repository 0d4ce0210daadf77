"""`--html`: a page that cannot be written is refused before the work, and one that can be holds the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import FEW_IMAGES, NET, kdna
from support.commands import commands

# Every other argument is wrong too, and would be refused as soon as the work begins.
WRONG = {
    ("analyze",): ["no_such_net", "--data", "nowhere"],
    ("bench",): ["no_such_net"],
    ("compare",): ["no_such_net", "--data", "nowhere", "--eval", "nowhere"],
    ("finetune",): ["nowhere", "--data", "nowhere", "-o", "no/such/out"],
    ("plan",): ["no_such_net", "--data", "nowhere"],
    ("run",): ["balanced", "no_such_net", "--data", "nowhere", "-o", "no/such/out"],
}


def test_these_are_all_commands_that_write_a_page_too() -> None:
    assert {words for words, one in commands().items() if any("--html" in each.opts for each in one.params)} == {*WRONG}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_page_that_cannot_be_written_is_refused_before_the_work(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place, code in ((tmp_path / "file" / "page.html", "KD604"), (tmp_path / "file", "KD601")):
        done = kdna(*words, *WRONG[words], "--html", place)
        assert done.exit_code == 2
        assert f"error {code}" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_the_page_of_a_bench_names_the_net_or_the_folder(tmp_path: Path) -> None:
    done = kdna("bench", "kdna:digits", "--rounds", "3", "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.stderr
    assert "<h1>Speed of kdna:digits</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_analyze_writes_the_layers_and_their_similarity(tmp_path: Path, images: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("before")
    done = kdna("analyze", NET, "--data", images, *FEW_IMAGES, "--html", page, "--force", "--json")
    assert done.exit_code == 0, done.stderr
    assert f"written to {page}" in done.stderr.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert '<section id="layers"' in text
    assert '<section id="similarity"' in text
    assert "Measured on 30 images." in text
    assert text.count("<img data-place=") == 4
    assert "--html" not in done.stderr
