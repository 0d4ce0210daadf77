"""A conversion in a process of its own: the page stays quick, and a stop takes effect at once."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..core.errors import KdnaError, cause


@dataclass
class Converting:
    """A conversion that runs or has ended. `done` of `total` of the stage `what`; `ended` says how it ended.

    `failed` tells whether `ended` is an error.
    """

    folder: Path
    what: str = "start"
    done: int = 0
    total: int = 0
    ended: str | None = None
    failed: bool = False
    process: Any = field(default=None, repr=False)

    def stop(self) -> None:
        """Stop it. Nothing is written."""
        if self.ended is None:
            self.ended, self.failed = "Stopped. Nothing was written.", True
            self.process.terminate()
            self.process.join()


def converting(
    arguments: Mapping[str, Any], recipe: str, plan: str, folder: Path, force: bool, command: str
) -> Converting:
    """Start to convert by a plan into a folder.

    Args:
        arguments: Those of api.convert.convert, without recipe and plan.
        recipe: The YAML of the recipe.
        plan: The plan as JSON.
        folder: Where the result is written.
        force: Whether it may replace a converted folder.
        command: What the report names as the command.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    job = (theirs, dict(arguments), recipe, plan, folder, force, command)
    process = context.Process(target=_convert, args=job, name="kdna convert")
    state = Converting(folder, process=process)
    process.start()
    theirs.close()
    threading.Thread(target=_follow, args=(state, ours), daemon=True).start()
    return state


def _follow(state: Converting, connection: Connection) -> None:
    """Keep the state equal to what the process reports, until it ends."""
    try:
        while state.ended is None:
            kind, *values = connection.recv()
            if kind == "progress":
                state.what, state.done, state.total = values
            else:
                state.ended, state.failed = values[0], kind == "error"
    except (EOFError, OSError):
        if state.ended is None:
            state.ended, state.failed = "The conversion ended without a result; the terminal may say why.", True


def _convert(
    connection: Connection, arguments: dict[str, Any], recipe: str, plan: str, folder: Path, force: bool, command: str
) -> None:
    """In the process: convert, write the folder and its page, and report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal ends the server, which stops this process
    from ..api.convert import convert
    from ..api.report import report_of_folder
    from ..core.specs import Plan, from_json
    from ..inputs.recipe import parse_recipe
    from ..network.folder import save

    def progress(what: str, done: int, total: int) -> None:
        connection.send(("progress", what, done, total))

    try:
        conversion = convert(**arguments, recipe=parse_recipe(recipe), plan=from_json(Plan, plan), progress=progress)
        conversion.report = conversion.report.with_command(command)
        save(conversion, folder, force=force)
        report_of_folder(folder, conversion).save(folder / "report.html", force=True)
        connection.send(("done", _summary(conversion.report.divergence, folder)))
    except KdnaError as error:
        connection.send(("error", str(error)))
    except Exception as error:
        connection.send(("error", f"a bug in kdna: {cause(error)}"))
        raise


def _summary(divergence: Any, folder: Path) -> str:
    """Where the result is, and how far it is from the original."""
    measured = ""
    if divergence is not None and divergence.agreement is not None and divergence.kl is not None:
        agreement = f"{100 * divergence.agreement:.2f} %"
        measured = f" On held-out images it agrees with the original on {agreement} (KL {divergence.kl:.2g})."
    return f"Written to {folder}; report.html in it shows the result.{measured}"
