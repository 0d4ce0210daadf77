"""No function of api/ or stages/finetune is longer than a screen, or takes more than eight arguments."""

import ast
from pathlib import Path

import pytest
from support.places import ROOT

LINES, ARGUMENTS = 50, 8
PACKAGE = ROOT / "kdna_convert"
FILES = sorted([*PACKAGE.glob("api/**/*.py"), *PACKAGE.glob("stages/finetune/**/*.py")])
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(function: Function) -> int:
    """Its lines from `def` to its end, without the docstring."""
    first = function.body[0]
    doc = first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
    told = 0 if doc is None else (doc.end_lineno or 0) - doc.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - told


def arguments_of(function: Function) -> int:
    """Its arguments, `*args` and `**options` counted as one each, `self` and `cls` not at all."""
    given = function.args
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")]) + sum(map(bool, (given.vararg, given.kwarg)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_fits_a_screen_and_takes_few_arguments(path: Path) -> None:
    sizes = {each.name: (lines_of(each), arguments_of(each)) for each in functions(path)}
    assert {name: size for name, size in sizes.items() if size[0] > LINES or size[1] > ARGUMENTS} == {}


def test_the_measure_counts_lines_and_arguments() -> None:
    source = 'def f(self, a, /, b, *c, d=1, **e):\n    """One.\n\n    Two."""\n    x = 1\n\n    return x\n'
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert (lines_of(function), arguments_of(function)) == (4, 5)


def test_files_are_measured() -> None:
    assert {"convert.py", "trainer.py"} <= {path.name for path in FILES}
