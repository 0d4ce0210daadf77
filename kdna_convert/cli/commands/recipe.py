"""`kdna recipe`: list, show, copy and validate recipes."""

from __future__ import annotations

import shlex
import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from ...core.shown import shown
from .completion import recipe_names
from .console import Commands, output_path, show, show_json, tell
from .help import Command
from .options import MODEL_HELP, RECIPE_HELP, SET_HELP

app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode=None, help="List, show, copy and validate recipes."
)

NameOrFile = Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP, autocompletion=recipe_names)]


@app.command("ls", cls=Command)
def ls(json: Annotated[bool, typer.Option("--json", help="Print the names as JSON.")] = False) -> None:
    """List the bundled recipes.

    Example:
        kdna recipe ls
    """
    from ...inputs.recipe import bundled
    from ..report.ls import name_table

    show_json(list(bundled())) if json else show(name_table(headlines()))


@app.command("show", cls=Command)
def show_(recipe: NameOrFile) -> None:
    """Print a recipe.

    Example:
        kdna recipe show balanced
    """
    from ...inputs.recipe import load_recipe

    text = load_recipe(recipe).text
    typer.echo(shown(text, lines=True) if sys.stdout.isatty() else text, nl=False)


@app.command("cp", cls=Command)
def cp(
    recipe: NameOrFile,
    destination: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to write. Default: RECIPE.yaml in this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Copy a recipe to edit it.

    Example:
        kdna recipe cp balanced mine.yaml
    """
    from ...core.atomic import write_text
    from ...inputs.recipe import load_recipe

    target = destination or Path(f"{Path(recipe).stem}.yaml")
    if target.is_dir():
        target /= f"{Path(recipe).stem}.yaml"
    write_text(output_path(target, force), load_recipe(recipe).text)
    tell(f"written to {target}\nnext  kdna recipe validate {shlex.quote(str(target))}", quiet=False)


@app.command("validate", cls=Command)
def validate(
    recipe: NameOrFile,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help=f"Also match the layer patterns against this net: {MODEL_HELP}")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)] = None,
) -> None:
    """Check the keys and values of a recipe and, with --model, its layer patterns.

    Example:
        kdna recipe validate balanced --model kdna:digits
    """
    from ...inputs.recipe import load_recipe, resolve

    checked = load_recipe(recipe, overrides or [])
    if model is None:
        typer.echo(f"{recipe}: valid")
        return
    from ...inputs.models import example_input, load_model
    from ...stages.analyze.survey import survey
    from ..report.recipe import assignment_table

    loaded = load_model(model, pretrained=False)  # names and shapes need no download
    layers = survey(loaded.model, example_input(loaded.data))
    show(assignment_table(resolve(checked, layers), checked.codec))


@app.command("schema", cls=Command)
def schema() -> None:
    """Print the JSON schema of a recipe, for completion in an editor.

    Example:
        kdna recipe schema
    """
    from ...inputs.recipe import json_schema

    show_json(json_schema())


def headlines() -> dict[str, str]:
    """The bundled recipes, each with the first sentence of its leading comment."""
    from ...inputs.recipe import bundled

    return {name: _headline(path) for name, path in bundled().items()}


def _headline(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))
    return comment.split(". ")[0].rstrip(".")
