"""Text from folders, models, recipes and checkpoints is printed as text: no markup, no control, no new line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from support.command import kdna
from support.folder_fuzz import reseal
from support.places import TESTS
from support.terminal import printed

from kdna_convert.cli.report.figures import grid
from kdna_convert.cli.report.heatmap import heatmap
from kdna_convert.cli.report.layers import layer_table
from kdna_convert.core.errors import ModelError
from kdna_convert.core.shown import shown, shown_json
from kdna_convert.core.specs import Layer, ModelRef, Plan, Totals, from_json
from kdna_convert.network.folder.card import model_card
from kdna_convert.network.folder.report import Report

HOSTILE = "[bold]a[/bold]\x1b[31mb\rc\nkdna: all checks passed\x9b2J\u202e\ud800:smile:"
INERT = r"[bold]a[/bold]\x1b[31mb\rc\nkdna: all checks passed\x9b2J\u202e\ud800:smile:"


def is_inert(text: str) -> bool:
    return shown(text, lines=True) == text


def test_controls_are_escaped_and_everything_else_is_kept() -> None:
    assert shown(HOSTILE) == INERT
    assert shown("a\n\x07b", lines=True) == "a\n\\x07b"
    assert shown("naïve 層 🙂 [x] \\x1b") == "naïve 層 🙂 [x] \\x1b"
    assert shown(shown(HOSTILE)) == shown(HOSTILE)


def test_json_says_the_same_with_its_controls_escaped() -> None:
    text = json.dumps({"name": "\x9b\u2028\x7fé"}, ensure_ascii=False)
    assert json.loads(shown_json(text)) == json.loads(text)
    assert is_inert(shown_json(text))


def test_a_cell_a_line_and_a_name_in_a_heatmap_are_each_one_inert_line() -> None:
    table = grid("layer", HOSTILE)
    table.add_row("x", HOSTILE)
    heads = printed(table, width=200).splitlines()
    assert [INERT in line for line in heads] == [True, True]
    assert printed(HOSTILE, width=200) == f"{INERT}\n"
    drawn = printed(heatmap([HOSTILE, "b"], [[1.0, 0.5], [0.5, 1.0]], [0, 1]), width=200)
    assert is_inert(drawn)
    assert len(drawn.splitlines()) == 3


def test_the_name_of_a_layer_is_printed_inert() -> None:
    out = printed(layer_table([Layer(HOSTILE, HOSTILE, (4, 4, 3, 3), reason="KD101")], 144), width=300)
    assert out.count(INERT) == 2
    assert is_inert(out)


def test_an_error_is_one_inert_line() -> None:
    error = ModelError("KD301", f"{HOSTILE} is not a model")
    assert (error.message, str(error)) == (f"{INERT} is not a model", f"KD301: {INERT} is not a model")


def test_a_recipe_with_a_hostile_key_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({HOSTILE.replace("\ud800", ""): 1}))
    done = kdna("recipe", "validate", tmp_path / "bad.yaml")
    assert done.exit_code == 2
    assert is_inert(done.output)
    assert len(done.stderr.splitlines()) == 1


def test_a_checkpoint_with_a_hostile_key_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"model": {HOSTILE: torch.ones(1)}}, tmp_path / "bad.pth")
    done = kdna("analyze", "kdna:digits", "--checkpoint", tmp_path / "bad.pth", "-q")
    assert done.exit_code == 2
    assert "KD303" in done.stderr
    assert is_inert(done.output)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["```\n# forged", "`a``b`", "<script>", HOSTILE])
def test_a_model_card_shows_names_and_recipe_as_code(text: str) -> None:
    plan = from_json(Plan, (TESTS / "folders" / "shared" / "plan.json").read_text())
    totals = Totals(1, 1, 1)
    plan = Plan(ModelRef(text, text, text), (), plan.layers, totals, totals)
    card = model_card(plan, text, Report(command=text), text).split("---\n", 2)[2]
    assert is_inert(card)
    blocks, outside = _fenced(card.splitlines())
    assert blocks == 4
    assert "# forged" not in outside
    assert "<script>" not in "\n".join(outside).replace("`<script>`", "")


def _fenced(lines: list[str]) -> tuple[int, list[str]]:
    """The number of fenced blocks and the lines outside them, as CommonMark reads them."""
    blocks, outside, fence = 0, [], ""
    for line in lines:
        info = line.lstrip("`")
        ticks = len(line) - len(info)
        if not fence and ticks >= 3 and "`" not in info:
            blocks, fence = blocks + 1, line[:ticks]
        elif fence and ticks >= len(fence) and not info:
            fence = ""
        elif not fence:
            outside.append(line)
    return blocks, outside


@pytest.mark.parametrize("command", [("verify",), ("bench",), ("export",), ("trust", "--yes")])
def test_a_folder_with_hostile_names_is_shown_in_inert_lines(command: tuple[str, ...], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TESTS / "folders" / "shared", tmp_path / "net"))
    name = HOSTILE.replace("\ud800", "") + ".py:net"
    for file, where in (("config.json", "kdna"), ("plan.json", None)):
        content = json.loads((folder / file).read_text())
        (content[where] if where else content)["model"]["name"] = name
        (folder / file).write_text(json.dumps(content))
    (folder / "x\n\x1b[31m").write_text("")
    reseal(folder)
    done = kdna(*command, folder)
    assert done.exit_code == (0 if command[0] == "trust" else 2)
    assert "kdna: all checks passed" not in done.output.splitlines()
    assert is_inert(done.output)
