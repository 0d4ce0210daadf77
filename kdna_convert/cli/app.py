"""`kdna`: the list of commands. Importing this file is fast; each command imports what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ..core.heap import keep_freed
from .commands import (
    analyze,
    bank,
    bench,
    build,
    code,
    compare,
    convert,
    demo,
    diff,
    env,
    evaluate,
    explain,
    explore,
    export,
    finetune,
    freeze,
    init,
    ls,
    patch,
    plan,
    profile,
    pull,
    push,
    recipe,
    report,
    run,
    shrink,
    sweep,
    trust,
    verify,
)
from .commands.console import Commands
from .commands.help import Command

app = typer.Typer(
    name="kdna",
    cls=Commands,
    help="Make a pretrained CNN smaller by sharing kernels across its layers.",
    epilog="Exit codes: 0 success, 1 a bug in kdna, 2 unusable input, 3 a failed guard, 130 interrupted.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = {
    "Convert": (
        run.run,
        analyze.analyze,
        plan.plan,
        explore.explore,
        convert.convert,
        bank.bank,
        finetune.finetune,
        shrink.shrink,
        freeze.freeze,
        code.code,
        build.build,
        sweep.sweep,
    ),
    "Measure and ship": (
        evaluate.eval_,
        report.report,
        compare.compare,
        bench.bench,
        profile.profile,
        verify.verify,
        trust.trust,
        export.export,
        push.push,
        pull.pull,
        diff.diff,
        patch.patch,
    ),
    "Learn": (demo.demo, init.init, ls.ls, explain.explain, env.env),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(command.__name__.rstrip("_"), cls=Command, rich_help_panel=panel)(command)
app.add_typer(recipe.app, name="recipe", rich_help_panel="Learn")


def _version(value: bool) -> None:
    if value:
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
