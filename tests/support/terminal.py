"""What a report looks like in a terminal."""

from __future__ import annotations

import io

from rich.console import RenderableType

from kdna_convert.cli.commands.console import PlainConsole


def printed(report: RenderableType, width: int = 80, color: str | None = None) -> str:
    """The text of a report, without the spaces at the end of its lines."""
    stream = io.StringIO()
    console = PlainConsole(
        file=stream, width=width, color_system=color, force_terminal=bool(color), legacy_windows=False
    )
    console.print(report)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())
