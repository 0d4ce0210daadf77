"""What a command prints: results on stdout; progress, hints and errors on stderr."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from ...core.atomic import require_writable, write_bytes
from ...core.errors import DataError, FolderError, KdnaError
from ...core.processes import launched, tell_before_joining
from ...core.progress import LOADING, Reporter, on_stderr
from ...core.shown import shown, shown_json
from .help import command_panels, parameter_panels, write_panels, write_text, write_usage

if TYPE_CHECKING:  # imports pydantic, which --help does not need
    from ...core.specs import Progress
    from ...network.folder import Conversion

SHARED = ("analyze", "convert", "eval", "finetune")  # the commands that several processes can share
LISTED = 5  # skipped images to name
REPORT_PAGE = "report.html"  # the page in a converted folder
PICTURES = (".svg", ".png", ".pdf")
VERBOSE, COMMAND = "kdna.verbose", "kdna.command"  # keys of the context's metadata
STOPPED = "kdna: {why}. The state is in {work}. Run the same command with --resume to continue."
LEFT = "kdna: {work} keeps what is done so far. --resume uses it."
OUTPUTS = frozenset(
    {"output", "force", "html", "json", "quiet", "verbose", "help"}
)  # what a suggested command does not repeat


class Commands(TyperGroup):
    """A group that prints a KdnaError as one line on stderr and exits with its code."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        write_usage(self, ctx, formatter)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_usage(self, ctx, formatter)
        write_text(self.help or "", formatter)
        write_panels(command_panels(self) | parameter_panels(self, ctx), formatter)
        write_text(self.epilog or "", formatter)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Keep the command line: a converted folder records how it was made."""
        typed = shlex.join(["kdna", *args])
        context = super().make_context(info_name, args, parent, **extra)
        context.meta.setdefault(COMMAND, typed)
        return context

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuse a launcher for a command that one process runs."""
        name, command, rest = super().resolve_command(ctx, args)
        if name not in SHARED:
            require_one_process(f"kdna {name}")
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KdnaError as error:
            if ctx.meta.get(VERBOSE):
                sys.stderr.write(shown(traceback.format_exc(), lines=True))
            print(f"kdna: error {error.code}: {error.message}", file=sys.stderr)  # noqa: T201
            if error.code not in ("KD410", "KD421"):  # which all processes have
                tell_before_joining(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def require_one_process(what: str) -> None:
    """Raise DataError KD410 if a launcher started several processes."""
    if launched() > 1:
        why = f"{what} runs in one process, and {launched()} were launched"
        raise DataError("KD410", f"{why}; run it without the launcher, which {', '.join(SHARED)} support")


class PlainConsole(Console):
    """A console for text that nobody has checked. A string is one line, is no markup, and controls nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments. What a Text holds is made plain here; the line ends in it are the report's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text, lines=True))


def show(result: RenderableType) -> None:
    """Print a report on stdout, 80 columns wide if stdout is no terminal."""
    PlainConsole().print(result)


def show_json(result: Any) -> None:
    """Print dataclasses or plain values as JSON on stdout."""
    from pydantic_core import to_json

    sys.stdout.write(shown_json(to_json(result, indent=2).decode()) + "\n")


def tell(text: str, quiet: bool = False) -> None:
    """Print a note or a hint on stderr."""
    if not quiet:
        PlainConsole(stderr=True, soft_wrap=True).print(Text(text))


def in_terminal() -> bool:
    """Whether a question can be asked and answered."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def tell_remarks(notes: Sequence[str], skipped: Sequence[str] = ()) -> None:
    """Print notes on the result and the images that could not be read, also with -q."""
    for note in notes:
        tell(f"kdna: {shown(note)}")
    if skipped:
        more = [f"  and {len(skipped) - LISTED} more"] if len(skipped) > LISTED else []
        what = "image" if not any(line.endswith(("images)", "image)")) for line in skipped) else "image or shard"
        were = f"{what} was" if len(skipped) == 1 else f"{what.replace(' or ', 's or ')}s were"
        tell("\n  ".join([f"kdna: {len(skipped)} {were} skipped", *map(shown, skipped[:LISTED]), *more]))


def save_folder(conversion: Conversion, target: Path, ctx: typer.Context, force: bool) -> None:
    """Write the folder. Its report records the commands that made it, this one last."""
    from ...network.folder import save

    conversion.report = conversion.report.with_command(ctx.meta[COMMAND])
    save(conversion, target, force=force)
    write_report(target, conversion)


def write_report(folder: Path, conversion: Conversion) -> None:
    """Leave report.html in a folder that was written of this conversion."""
    from ...api.report import report_of_folder

    report_of_folder(folder, conversion).save(folder / REPORT_PAGE, force=True)


def copy_report(folder: Path, target: Path, quiet: bool) -> None:
    """The page of a folder, to the file of a --html that `output_path` has checked."""
    write_bytes(target, (folder / REPORT_PAGE).read_bytes())
    tell(f"page written to {target}", quiet)


def write_page(ctx: typer.Context, result: object, target: Path, quiet: bool, **about: Any) -> None:
    """The page of a result, to the file of a --html that `output_path` has checked. `about`: as for page_of_result."""
    from ...api.result_pages import page_of_result
    from ...inputs.models.names import answer

    model = ctx.params["model"]
    name = Path(model).resolve().name if answer(Path(model).is_dir) else model
    page_of_result(result, command=ctx.meta[COMMAND], name=name, **about).save(target, force=True)
    tell(f"page written to {target}", quiet)


def tell_written(conversion: Conversion, folder: Path, quiet: bool, *commands: str, measured: bool = False) -> None:
    """Where the result is, and what to do next. A routing that depends on the input cannot be folded."""
    name, folded = shlex.quote(str(folder)), "" if conversion.plan.routes else ", folded=True"
    measure = [] if measured else [f"kdna eval {name} --data VALIDATION  (images that this command has not used)"]
    load = f'python: model = kdna_convert.load("{folder}"{folded})'
    timed = conversion.plan.planned.latency is not None
    export = f"kdna export {name} --to onnx" if timed else f"kdna export {name} --to merged"
    load = f'python: model = kdna_convert.factor(kdna_convert.load("{folder}"))' if timed else load
    following = "\n      ".join([*measure, *commands, export, load])
    shows = f"\n{REPORT_PAGE} in it shows the result" if (folder / REPORT_PAGE).exists() else ""
    tell(f"written to {folder}{shows}\nnext  {following}", quiet)


def following(ctx: typer.Context, verb: str, *options: str, without: Sequence[str] = ()) -> str:
    """A command of another verb with the arguments of this one that it takes, except `without`, then `options`."""
    group: Any = ctx.find_root().command
    accepted = {each.name for each in group.commands[verb].params} - OUTPUTS - {*without}
    return shlex.join(["kdna", verb, *given_words(ctx, accepted), *options])


def given_words(ctx: typer.Context, names: Collection[str | None]) -> list[str]:
    """The arguments of these names that were given to this command, as words of a command line."""
    words: list[str] = []
    for each in ctx.command.get_params(ctx):
        name = each.name or ""
        source: Any = ctx.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name not in names:
            continue
        value = ctx.params[name]
        flag = [] if each.param_type_name == "argument" else [max(each.opts, key=len)]
        if value is not True:
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for one in values for word in (*flag, str(one))]
        else:
            words += flag
    return words


@contextmanager
def resumable(target: Path, files: Sequence[str], resume: bool, quiet: bool) -> Iterator[Path]:
    """The folder for the state of a run. A run that ends early says what is left there."""
    from ...network.folder.work import work_folder, work_place

    try:
        with work_folder(target, files, resume) as work:
            yield work
    except (KeyboardInterrupt, KdnaError) as stop:
        work = work_place(target)
        if work.exists() and isinstance(stop, KeyboardInterrupt):
            tell(STOPPED.format(why=str(stop) or "stopped", work=work))
        elif work.exists():
            tell(LEFT.format(work=work), quiet)
        raise


def picture_path(path: Path, force: bool) -> Path:
    """The --plot of a command, checked before the work begins."""
    if path.suffix.lower() not in PICTURES:
        raise typer.BadParameter(
            f"{path}: the name must end with {', '.join(PICTURES[:-1])} or {PICTURES[-1]}", param_hint="--plot"
        )
    if find_spec("matplotlib") is None:
        raise typer.BadParameter("requires matplotlib: pip install 'kdna-convert[compare]'", param_hint="--plot")
    return output_path(path, force)


def output_path(path: Path | None, force: bool) -> Path:
    """The -o of a command that requires one. A path that exists or cannot be written is refused before the work."""
    if path is None:
        raise typer.BadParameter("required: where to write", param_hint="-o")
    if path.exists() and not force:
        raise FolderError("KD601", f"{path} exists; give another name or --force")
    require_writable(path)
    return path


@contextmanager
def reporting(quiet: bool, notes: Sequence[str] = (), hints: Sequence[str] = ()) -> Iterator[Progress | None]:
    """Progress on stderr: a bar in a terminal, plain lines in a file or a pipe; none with -q.

    Notes are printed when the model is loaded and the long work begins, also with -q; hints are not with -q.
    """
    reporter = None if quiet else on_stderr()
    notes = [*notes, *([] if quiet else hints)]
    noted = Noted(notes, reporter) if notes else reporter
    try:
        yield noted
        if notes and isinstance(noted, Noted):
            noted.tell()
    finally:
        if reporter is not None:
            reporter.close()


class Noted(Reporter):
    """Prints notes before the first report of a stage other than loading; passes reports on."""

    def __init__(self, notes: Sequence[str], reporter: Reporter | None) -> None:
        super().__init__()
        self.notes, self.reporter = list(notes), reporter

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != LOADING:
            self.tell()
        if self.reporter is not None:
            self.reporter(what, done, total)

    def tell(self) -> None:
        if self.notes and self.reporter is not None:
            self.reporter.close()
        tell_remarks(self.notes)
        self.notes = []
