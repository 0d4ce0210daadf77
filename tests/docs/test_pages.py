"""The pages of the documentation: their links, the commands that they name, the tables that repeat something."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import documents
from support.places import ROOT
from typer.main import get_command

import kdna_convert
from kdna_convert.cli.app import app
from kdna_convert.codecs import CODECS
from kdna_convert.core.errors import CODES
from kdna_convert.routing import ROUTINGS
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.repair import STEPS

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

README = documents.pages()[ROOT / "README.md"]
EXTENDING = documents.pages()[documents.DOCS / "extending" / "index.md"]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SOURCES = sorted(file for name in ("kdna_convert", "benchmarks", "examples") for file in (ROOT / name).rglob("*.py"))
# Prose may leave arguments out: `kdna convert`, `kdna plan -o`.
INCOMPLETE = re.compile("Missing |Option .* requires an argument")
HELP = ("-h", "--help")


def named(paths: Any) -> Any:
    return pytest.mark.parametrize("path", paths, ids=documents.name_of)


@cache
def command_line() -> Any:
    return get_command(app)


def fault(arguments: list[str]) -> str | None:
    """What the command line `kdna ARGUMENTS` fails with before it runs; None if it parses."""
    command = command_line()
    if arguments[0].startswith("-"):  # kdna --version: such an option acts while it is parsed
        options = {option for param in command.params for option in param.opts} | set(HELP)
        return None if set(arguments) <= options else f"No such option: {' '.join(arguments)}"
    context: Any = None
    rest = list(arguments)
    try:
        while True:
            context = command.make_context("kdna" if context is None else command.name, rest, parent=context)
            if not hasattr(command, "commands"):
                return None
            _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return "Missing command"
        if not hasattr(error, "exit_code"):
            raise
        return getattr(error, "format_message", str)() or None  # --help ends without a message


@named(documents.pages())
def test_links_lead_to_a_file_and_a_heading(path: Path) -> None:
    pages = documents.pages()
    for link in documents.links(pages[path]):
        if re.match(r"https?://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target in pages or target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in documents.anchors(pages[target]), f"{link}: no such heading"


@named([*documents.pages(), *RECIPES, *(path for path in SOURCES if path.parent.name == "examples")])
def test_every_command_of_a_page_parses(path: Path) -> None:
    text = documents.pages().get(path) or path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    for arguments in documents.whole_commands(text):
        assert fault(arguments) is None, f"kdna {' '.join(arguments)}: {fault(arguments)}"
    for arguments in documents.mentioned_commands(text):
        problem = fault(arguments)
        assert problem is None or INCOMPLETE.match(problem), f"kdna {' '.join(arguments)}: {problem}"


def test_a_command_that_does_not_exist_is_found() -> None:
    assert fault(["load", "DIR"])
    assert fault(["convert", "MODEL", "--no-such-option"])
    assert fault(["--no-such-option"])
    assert fault(["--version"]) is None
    assert INCOMPLETE.match(fault(["convert"]) or "")
    assert list(documents.whole_commands("    kdna convert A \\\n        -o B  # first\n")) == [
        ["convert", "A", "-o", "B"]
    ]


@named(SOURCES)
def test_the_code_names_pages_that_exist(path: Path) -> None:
    for name in re.findall(r"\bdocs/[\w/.-]*\w", path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists() or list(ROOT.glob(f"{name}-*.md")), f"{name}: no such page"


@named(documents.pages())
def test_the_python_of_a_page_parses_and_imports_what_exists(path: Path) -> None:
    text = documents.pages()[path]
    for block in documents.blocks(text):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdna_convert"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    for name in re.findall(r"^::: (\S+)$|`(kdna_convert(?:\.\w+)+)", text, re.M):
        assert resolves("".join(name)), f"{''.join(name)}: no such name"


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    return find_spec(module) is not None and (
        hasattr(importlib.import_module(module), attribute) or find_spec(name) is not None
    )


def test_the_readme_fits_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_the_readme_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}  # type: ignore[index]
    table = README.split("| package | for |")[1].split("\n\n")[0]
    listed = [name.strip().lower() for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")]
    assert sorted(listed) == sorted(declared)


def test_the_extras_of_the_install_page_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"\.\[([\w,]+)\]", documents.pages()[documents.DOCS / "install.md"])
    assert {name for names in extras for name in names.split(",")} == set(project["optional-dependencies"])


def test_the_site_begins_with_the_readmes_words() -> None:
    index = documents.pages()[documents.DOCS / "index.md"]
    for start in ("# kdna\n", "## When not to use it\n"):
        readme, site = (page.split(start)[1].split("\n## ")[0].strip().split("\n\n")[0] for page in (README, index))
        assert readme == site


def test_readme_install_page_and_help_agree_on_the_exit_codes() -> None:
    codes = re.findall(r"(\d+) ([a-z ]+)[,.]", app.info.epilog or "")
    install = documents.pages()[documents.DOCS / "install.md"]
    assert [code for code, _ in codes] == ["0", "1", "2", "3", "130"]
    assert ", ".join(f"{code} {meaning}" for code, meaning in codes) in " ".join(README.split())
    for code, meaning in codes:
        assert re.search(rf"^\| {code} \| {meaning}\b", install, re.M)


def test_the_reference_has_every_public_name() -> None:
    page = documents.pages()[documents.DOCS / "reference" / "python.md"]
    public = {name for name in dir(kdna_convert) if not name.startswith("_")}
    assert set(re.findall(r"^::: kdna_convert\.(\w+)$", page, re.M)) == public


def test_the_reference_has_every_command_and_option() -> None:
    page = documents.pages()[documents.DOCS / "reference" / "cli.md"]
    for name, command in documents.generator()["commands"]():
        assert f"## {name}\n" in page
        section = page.split(f"## {name}\n")[1].split("\n## ")[0]
        options = [option for param in command.params for option in param.opts if option.startswith("--")]
        assert [option for option in options if f"`{option}`" not in section] == []


def test_the_reference_has_every_code_and_plug_in() -> None:
    pages = documents.pages()
    assert set(CODES) <= set(re.findall(r"^### (\w+)$", pages[documents.DOCS / "reference" / "errors.md"], re.M))
    cards = re.findall(r"^### (.+)$", pages[documents.DOCS / "reference" / "cards.md"], re.M)
    names = [name for heading in cards for name in heading.split(", ")]
    assert sorted(names) == sorted([*SCHEMES, *ROUTINGS, *CODECS, *STEPS])


def test_every_decision_is_in_the_index_and_in_the_site() -> None:
    decisions = sorted(path.name for path in (documents.DOCS / "decisions").glob("[0-9]*.md"))
    index = documents.pages()[documents.DOCS / "decisions" / "index.md"]
    assert re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", index, re.M) == decisions
    site = (ROOT / "mkdocs.yml").read_text()
    assert re.findall(r"- decisions/(\d[^\s]+)", site) == decisions


def test_contributing_names_every_room_and_table() -> None:
    page = documents.pages()[ROOT / "CONTRIBUTING.md"]
    rooms = {path.parent.name for path in (ROOT / "kdna_convert").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == rooms
    tables = re.findall(r"\| `([A-Z]+)` \| `([\w/.]+)` \|", EXTENDING)
    for table, place in tables:
        assert re.search(rf"^{table}\b", (ROOT / "kdna_convert" / place).read_text(), re.M), f"{place} has no {table}"
    assert {table for table, _ in tables} == set(re.findall(r"`([A-Z]+)`", page))


def test_contributing_and_extending_send_to_the_same_places() -> None:
    page = documents.pages()[ROOT / "CONTRIBUTING.md"]
    package = ROOT / "kdna_convert"
    places = set(re.findall(r"`([\w/]+(?:/|\.py))`", page.split("| to add | begin in |")[1].split("\n\n")[0]))
    assert [place for place in places if not re.search(rf"`{place}", EXTENDING)] == []
    for place in {*places, *re.findall(r"`([\w/]+(?:/|\.py))`", EXTENDING)}:
        assert (package / place).exists() or (ROOT / place).exists(), f"{place}: no such file"
    for name, place in re.findall(r"`(\w+)` (?:in|of) `([\w/.]+\.py)`", EXTENDING):
        assert re.search(rf"^(class |def )?{name}\b", (package / place).read_text(), re.M), f"{place} has no {name}"


def test_every_command_that_reads_a_folder_takes_the_callers_word() -> None:
    commands = dict(documents.generator()["commands"]())
    reads = {
        name for name, command in commands.items() if any(param.metavar == "FOLDER" for param in command.params[:1])
    }
    trusting = {name for name, command in commands.items() if "trust_code" in {param.name for param in command.params}}
    assert reads - {"kdna trust", "kdna push"} <= trusting  # push sends files and builds nothing
    page = documents.pages()[ROOT / "SECURITY.md"]
    assert "which every command that reads a folder takes" in page
    assert "KD611" in page


def test_ci_runs_the_readmes_test_command_on_every_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    test = workflow["jobs"]["test"]
    versions = test["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={versions[0]}"
    classified = [re.match(r"Programming Language :: Python :: (3\.\d+)$", line) for line in project["classifiers"]]
    assert [match[1] for match in classified if match] == versions
    assert "make test" in [step.get("run") for step in test["steps"]]
    assert "    make test " in README
    assert "kdna env" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
