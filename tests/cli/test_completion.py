"""Shell completion: what is completed, that it can be installed, and that it starts fast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

from kdna_convert.core.errors import CODES
from kdna_convert.inputs.recipe import bundled
from kdna_convert.schemes import SCHEMES

HEAVY = "numpy", "torch", "timm", "torchvision", "scipy", "sklearn"


def shell(*arguments: str, **environment: str) -> str:
    """What a new process of kdna prints."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "kdna_convert", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=True).stdout


def completed(line: str) -> list[str]:
    """The candidates of bash for the last word of the line."""
    words = line.split(" ")
    return shell(_KDNA_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)).split()


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("kdna co", ["convert", "code", "compare"]),
        ("kdna convert net --target-", ["--target-params", "--target-bytes", "--target-macs", "--target-latency"]),
        ("kdna convert net --recipe shared-", [name for name in bundled() if name.startswith("shared-")]),
        ("kdna run ", list(bundled())),
        ("kdna plan net --scheme ", [*SCHEMES, "dense"]),
        ("kdna explain KD50", [code for code in CODES if code.startswith("KD50")]),
        ("kdna ls sch", ["schemes"]),
        ("kdna recipe val", ["validate"]),
    ],
)
def test_the_shell_completes(line: str, candidates: list[str]) -> None:
    assert completed(line) == candidates


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed_for_a_shell(name: str, tmp_path: Path) -> None:
    assert "_KDNA_COMPLETE" in shell("--show-completion", name, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    output = shell("--install-completion", name, HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"{name} completion installed" in output
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "kdna" in path.read_text()]


def test_completing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from kdna_convert.cli.commands import completion as c; "
        "[complete() for complete in (c.recipe_names, c.scheme_names, c.codec_names, c.code_names)]; "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
