"""What a command prints, and where: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from ...core.errors import DataError, FolderError, KdnaError
from ...core.processes import launched
from ...core.progress import on_stderr

if TYPE_CHECKING:  # pydantic takes a tenth of a second, and --help needs none of it
    from ...core.specs import Progress
    from ...network.folder import Conversion

SHARED = ("analyze", "convert", "eval", "finetune")  # what the processes of a launch do together
LISTED = 5  # skipped images that are named
PICTURES = (".svg", ".png", ".pdf")
VERBOSE, COMMAND = "kdna.verbose", "kdna.command"  # what the contexts of one call have in common


class Commands(TyperGroup):
    """A group whose commands turn the user's errors into one line on stderr and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Keeps the call as it was typed: a converted folder says how to make it again."""
        typed = shlex.join(["kdna", *args])
        context = super().make_context(info_name, args, parent, **extra)
        context.meta.setdefault(COMMAND, typed)
        return context

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuses to have every process of a launch do all of what one should do."""
        name, command, rest = super().resolve_command(ctx, args)
        if name not in SHARED:
            require_one_process(f"kdna {name}")
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KdnaError as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exc()
            print(f"kdna: error {error.code}: {error.message}", file=sys.stderr)  # noqa: T201
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def require_one_process(what: str) -> None:
    """Raises DataError KD410 in each of several."""
    if launched() > 1:
        why = f"{what} is one process, and was launched as {launched()}"
        raise DataError("KD410", f"{why}; leave out the launcher, which is for {', '.join(SHARED)}")


def show(result: RenderableType) -> None:
    """A report on stdout, 80 columns wide where stdout is not a terminal."""
    Console(highlight=False).print(result)


def show_json(result: Any) -> None:
    """A stage's dataclasses, or plain values, as JSON on stdout."""
    from pydantic_core import to_json

    sys.stdout.write(to_json(result, indent=2).decode() + "\n")


def tell(text: str, quiet: bool = False) -> None:
    """A remark on stderr: what was skipped, what to do next."""
    if not quiet:
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def tell_remarks(notes: Sequence[str], skipped: Sequence[str] = ()) -> None:
    """What the user should know about the result, -q or not: notes, and which images could not be read."""
    for note in notes:
        tell(f"kdna: {note}")
    if skipped:
        more = [f"  and {len(skipped) - LISTED} more"] if len(skipped) > LISTED else []
        were = "image was" if len(skipped) == 1 else "images were"
        tell("\n  ".join([f"kdna: {len(skipped)} {were} skipped", *skipped[:LISTED], *more]))


def save_folder(conversion: Conversion, target: Path, ctx: typer.Context, force: bool) -> None:
    """Writes the folder; its report holds the commands that made it, this one last."""
    from ...network.folder import save

    conversion.report = conversion.report.with_command(ctx.meta[COMMAND])
    save(conversion, target, force=force)


def picture_path(path: Path, force: bool) -> Path:
    """A place that can be drawn to, known before the hours of work and not after them."""
    if path.suffix.lower() not in PICTURES:
        raise typer.BadParameter(f"{path}: draw to one of {', '.join(PICTURES)}", param_hint="--plot")
    if find_spec("matplotlib") is None:
        raise typer.BadParameter("needs matplotlib: pip install 'kdna-convert[compare]'", param_hint="--plot")
    return output_path(path, force)


def output_path(path: Path | None, force: bool) -> Path:
    """The -o of a command that needs one; an existing place is refused before the work, not after it."""
    if path is None:
        raise typer.BadParameter("say where to write", param_hint="-o")
    if path.exists() and not force:
        raise FolderError("KD601", f"{path} exists already; give another name or --force")
    return path


@contextmanager
def reporting(quiet: bool) -> Iterator[Progress | None]:
    """Progress on stderr: a bar in a terminal, plain lines in a file or a pipe; None with -q."""
    if quiet:
        yield None
        return
    reporter = on_stderr()
    try:
        yield reporter
    finally:
        reporter.close()
