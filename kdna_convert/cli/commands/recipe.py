"""`kdna recipe`: look at the bundled recipes, copy one, check one's own."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from .console import Commands, output_path, show, show_json, tell
from .options import MODEL_HELP

app = typer.Typer(cls=Commands, no_args_is_help=True, help="The bundled recipes, and checks for your own.")

NameOrFile = Annotated[str, typer.Argument(help="Recipe file, or a bundled recipe's name.")]


@app.command("ls")
def ls(json: Annotated[bool, typer.Option("--json", help="Print the names as JSON.")] = False) -> None:
    """List the bundled recipes."""
    from ...inputs.recipe import bundled
    from ..report.ls import name_table

    show_json(list(bundled())) if json else show(name_table(headlines()))


@app.command("show")
def show_(recipe: NameOrFile) -> None:
    """Print a recipe as it is written."""
    from ...inputs.recipe import load_recipe

    typer.echo(load_recipe(recipe).text, nl=False)


@app.command("cp")
def cp(
    recipe: NameOrFile,
    destination: Annotated[Path | None, typer.Argument(help="Where to; without it NAME.yaml here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Copy a recipe, to change it."""
    from ...inputs.recipe import load_recipe
    from ...stages.plan.files import write_text

    target = destination or Path(f"{Path(recipe).stem}.yaml")
    if target.is_dir():
        target /= f"{Path(recipe).stem}.yaml"
    write_text(output_path(target, force), load_recipe(recipe).text)
    tell(f"{target}; check it with: kdna recipe validate {target}", quiet=False)


@app.command("validate")
def validate(
    recipe: NameOrFile,
    model: Annotated[str | None, typer.Option(help=f"Check its layer patterns on this net too: {MODEL_HELP}")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
) -> None:
    """Check a recipe's keys and values and, with --model, that its patterns match layers."""
    from ...inputs.recipe import load_recipe, resolve

    checked = load_recipe(recipe, overrides or [])
    if model is None:
        typer.echo(f"{recipe}: valid")
        return
    from ...inputs.models import example_input, load_model
    from ...stages.analyze.survey import survey
    from ..report.recipe import assignment_table

    loaded = load_model(model)
    layers = survey(loaded.model, example_input(loaded.data))
    show(assignment_table(resolve(checked, layers)))


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of a recipe, for an editor to complete and check."""
    from ...inputs.recipe import json_schema

    show_json(json_schema())


def headlines() -> dict[str, str]:
    """The bundled recipes, each with the first sentence of the comment that it begins with."""
    from ...inputs.recipe import bundled

    return {name: _headline(path) for name, path in bundled().items()}


def _headline(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))
    return comment.split(". ")[0].rstrip(".")
