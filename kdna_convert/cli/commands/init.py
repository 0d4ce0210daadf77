"""`kdna init`: a new recipe from a few answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...core.errors import KdnaError
from .completion import routing_names
from .console import in_terminal, output_path, tell
from .options import Force

GoalName = Literal["parameters", "accuracy", "macs", "bytes", "routing"]
RECIPE = Path("recipe.yaml")
NONE = "none"
GOAL_HELP = (
    "What matters most. parameters: few parameters, fast to plan. accuracy: few parameters at the smallest loss. "
    "macs: few MACs. bytes: a small file. routing: layers that depend on the input."
)
SIZE_HELP = "Size of the result: 50%, 1/20 or, for bytes, 1.2MB. Default: by the goal."
TIME_HELP = "Time for fine-tuning: 90s, 10m, 1.5h or none. Default: none."


def init(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Recipe file to write.")] = RECIPE,
    goal: Annotated[GoalName | None, typer.Option(metavar="NAME", help=GOAL_HELP)] = None,
    size: Annotated[str | None, typer.Option(metavar="SIZE", help=SIZE_HELP)] = None,
    finetune: Annotated[str | None, typer.Option(metavar="TIME", help=TIME_HELP)] = None,
    routing: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Routing; see `kdna ls routing`. Default: se.", autocompletion=routing_names),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Net, for the suggested commands.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="DATA", help="Images, for the suggested commands.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Use defaults instead of questions.")] = False,
    force: Force = False,
) -> None:
    """Write a recipe with a comment on every key.

    In a terminal, asks for what no option gives.

    Example:
        kdna init --goal bytes --size 1/20 --finetune 10m -o small.yaml
    """
    target = output_path(output, force)
    from ...core.atomic import write_text
    from ...inputs.recipe import GOALS, SIZES, Answers, next_commands, recipe_text

    def answer(given: str | None, question: str, default: str, fits: Callable[[str], object]) -> str:
        return given or (_asked(question, default, fits) if not yes and in_terminal() else default)

    chosen = answer(goal, f"What matters most ({', '.join(GOALS)})", GOALS[0], lambda text: Answers(text))
    answers = Answers(
        chosen,
        answer(size, "Size of the result", SIZES[chosen], lambda text: Answers(chosen, size=text)),
        answer(finetune, "Time for fine-tuning, or none", NONE, lambda text: Answers(chosen, finetune=text)),
        answer(routing, "Routing", "se", lambda text: Answers(chosen, routing=text)) if chosen == "routing" else None,
        answer(model, "Model, for the suggested commands", "MODEL", str),
        answer(data, "Images, for the suggested commands", "DATA", str),
    )
    write_text(target, recipe_text(answers, str(target)))
    following = "\n      ".join(next_commands(answers, str(target)))
    tell(f"written to {target}\nnext  {following}")


def _asked(question: str, default: str, fits: Callable[[str], object]) -> str:
    """The answer to a question on stderr, repeated until it can be used."""
    while True:
        text = str(typer.prompt(question, default=default, err=True)).strip()
        try:
            fits(text)
        except KdnaError as error:
            tell(error.message)
        else:
            return text
