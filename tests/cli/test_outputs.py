"""An output that cannot be written is found before the work, by every command that writes one."""

from pathlib import Path

import pytest
from support.command import kdna
from support.commands import commands

# Every other argument is wrong too, and would be refused as soon as the work begins.
WRONG = {
    ("bank",): ["no_such_net", "other_net", "--data", "nowhere"],
    ("build",): ["no-such-layout"],
    ("code",): ["nowhere", "--codec", "fp16"],
    ("convert",): ["no_such_net", "--data", "nowhere"],
    ("demo",): [],
    ("diff",): ["nowhere", "nowhere"],
    ("export",): ["nowhere"],
    ("finetune",): ["nowhere", "--data", "nowhere"],
    ("freeze",): ["nowhere", "--data", "nowhere"],
    ("init",): ["--yes"],
    ("patch",): ["nowhere", "no.update"],
    ("plan",): ["no_such_net", "--data", "nowhere"],
    ("pull",): ["owner/nothing"],
    ("report",): ["nowhere"],
    ("run",): ["balanced", "no_such_net", "--data", "nowhere"],
    ("sweep",): ["{grid}"],
    ("shrink",): ["nowhere", "--data", "nowhere", "--target-params", "0.5"],
}


def test_these_are_all_commands_with_an_output() -> None:
    assert {words for words, one in commands().items() if any("-o" in each.opts for each in one.params)} == {*WRONG}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "grid.yaml").write_text("{models: [none], recipes: [balanced], budgets: [{params: 0.5}]}")
    arguments = [word.format(grid=tmp_path / "grid.yaml") for word in WRONG[words]]
    done = kdna(*words, *arguments, "-o", tmp_path / "file" / "out")
    assert done.exit_code == 2
    assert "error KD604" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"
