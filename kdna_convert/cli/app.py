"""`kdna`: the commands, put together. Importing this file imports nothing heavy; each command imports what it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ..core.heap import keep_freed
from .commands import (
    analyze,
    bench,
    build,
    code,
    compare,
    convert,
    demo,
    env,
    evaluate,
    explain,
    export,
    finetune,
    freeze,
    ls,
    plan,
    recipe,
    run,
    shrink,
    verify,
)
from .commands.console import Commands

app = typer.Typer(
    name="kdna",
    cls=Commands,
    help="Make a pretrained CNN smaller by sharing kernels across its layers.",
    epilog="Exit codes: 0 done, 1 a bug of kdna, 2 the input cannot be used, 3 a guard failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = {
    "Convert": (
        run.run,
        analyze.analyze,
        plan.plan,
        convert.convert,
        finetune.finetune,
        shrink.shrink,
        freeze.freeze,
        code.code,
        build.build,
    ),
    "Measure and ship": (evaluate.eval_, compare.compare, bench.bench, verify.verify, export.export),
    "Learn": (demo.demo, ls.ls, explain.explain, env.env),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)
app.add_typer(recipe.app, name="recipe", rich_help_panel="Learn")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdna {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")
    ] = False,
) -> None:
    """Make a pretrained CNN smaller by sharing kernels across its layers."""


def main() -> None:
    """The console script."""
    keep_freed()
    app(prog_name="kdna")
