"""Every example that is marked to be run is run as it is written, a page in one folder and one namespace."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support import documents
from support.command import kdna

MARKED = {
    path: blocks
    for path, text in documents.pages().items()
    if (blocks := [block for block in documents.blocks(text) if block.runs])
}


@pytest.mark.parametrize("path", MARKED, ids=documents.name_of)
def test_a_marked_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    for block in MARKED[path]:
        if block.language == "python":
            exec(compile(block.text, documents.name_of(path), "exec"), names)
            continue
        for line in block.text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "kdna"
            done = kdna(*arguments)
            assert done.exit_code == 0, f"{line}\n{done.output}"


def test_the_readme_and_the_tutorial_have_marked_examples() -> None:
    marked = {documents.name_of(path) for path in MARKED}
    assert {"README.md", "docs/tutorial.md"} <= marked
