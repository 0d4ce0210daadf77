"""`kdna explain`: what an error or reason code means."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

import typer

from ...core.errors import CODES
from .completion import code_names
from .console import show


def explain(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE", autocompletion=code_names, help="A code such as KD301. Without one, all codes are listed."
        ),
    ] = None,
) -> None:
    """Explain an error code or a reason code.

    Example:
        kdna explain KD301
    """
    from ..report.ls import name_table

    if code is None:
        show(name_table(CODES))
        return
    known = code.upper() if code.upper() in CODES else f"KD{code}"
    if known not in CODES:
        close = get_close_matches(code.upper(), CODES, n=3, cutoff=0.7)
        raise typer.BadParameter(
            f"there is no code {code}" + (f"; did you mean {' or '.join(close)}?" if close else "")
        )
    show(name_table({known: CODES[known]}))
