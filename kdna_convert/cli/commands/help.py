"""The layout of help: plain text within 80 columns, a heading for each panel, one column of options for all panels."""

from __future__ import annotations

from enum import Enum
from textwrap import wrap
from typing import Any

from typer.core import TyperCommand

WIDEST = 26  # columns of an option with its value; what is wider has its description on the next line
GAP = 2
FIRST = ("Arguments", "Options")
NO_BREAK = "\u00a0"
Row = tuple[str, str]


class Command(TyperCommand):
    """A command with the help of this file."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        write_usage(self, ctx, formatter)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        write_usage(self, ctx, formatter)
        write_text(self.help or "", formatter)
        write_panels(parameter_panels(self, ctx), formatter)


def write_usage(command: Any, ctx: Any, formatter: Any) -> None:
    """`Usage: kdna convert MODEL [OPTIONS]`."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    names = [name_of(parameter) if parameter.required else f"[{name_of(parameter)}]" for parameter in arguments]
    rest = ["COMMAND", "..."] if hasattr(command, "commands") else []
    formatter.write_usage(ctx.command_path, " ".join([*names, "[OPTIONS]", *rest]))


def write_text(text: str, formatter: Any) -> None:
    """Paragraphs, filled; an indented line, such as a command to copy, stays as it is."""
    for paragraph in filter(None, text.strip().split("\n\n")):
        formatter.write("\n")
        lines: list[str] = []
        for line in paragraph.split("\n"):
            if line.startswith(" ") or not lines or lines[-1].startswith(" ") or lines[-1].endswith(":"):
                lines.append(line)
            else:
                lines[-1] += f" {line}"
        for line in lines:
            filled = [line] if line.startswith(" ") else fill(line, formatter.width - GAP)
            formatter.write("".join(f"  {part}\n" for part in filled))


def write_panels(panels: dict[str, list[Row]], formatter: Any) -> None:
    """Each panel under its heading. The descriptions of all panels begin in the same column."""
    names = [name for rows in panels.values() for name, _ in rows if len(name) <= WIDEST]
    column = max(map(len, names), default=0) + 2 * GAP
    for title, rows in panels.items():
        formatter.write(f"\n{title}:\n")
        for name, text in rows:
            first, *others = fill(text, formatter.width - column) or [""]
            indented = "  " + name.ljust(column - GAP)
            formatter.write(f"{indented}{first}\n" if len(name) <= WIDEST else f"  {name}\n{' ' * column}{first}\n")
            formatter.write("".join(f"{' ' * column}{other}\n" for other in others))


def parameter_panels(command: Any, ctx: Any) -> dict[str, list[Row]]:
    """Arguments, options without a panel, then the panels in the order in which the command names them."""
    panels: dict[str, list[Row]] = {}
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        is_argument = parameter.param_type_name == "argument"
        title = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
        panels.setdefault(title, []).append((name_of(parameter), describe(parameter)))
    return dict(sorted(panels.items(), key=lambda panel: FIRST.index(panel[0]) if panel[0] in FIRST else len(FIRST)))


def fill(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters; a word with hyphens, such as a flag, is not divided."""
    lines = wrap(text, width, break_on_hyphens=False, break_long_words=False)
    return [line.replace(NO_BREAK, " ") for line in lines]


def name_of(parameter: Any) -> str:
    """`MODEL`, `-d, --data DATA` or `--augment / --no-augment`."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    flags = ", ".join(sorted(parameter.opts, key=len))
    value = f" {parameter.metavar}" if parameter.metavar else ""
    return flags + value + "".join(f" / {flag}" for flag in parameter.secondary_opts)


def describe(parameter: Any) -> str:
    """The help, and the default where there is one that it does not name."""
    text, default = parameter.help or "", parameter.default
    default = default.value if isinstance(default, Enum) else default
    if isinstance(default, bool):
        default = ("on" if default else "off") if parameter.secondary_opts else None
    return text if parameter.required or default is None else f"{text} [default:{NO_BREAK}{default}]"


def command_panels(group: Any) -> dict[str, list[Row]]:
    """The commands by panel: each with the first paragraph of its help."""
    panels: dict[str, list[Row]] = {}
    for name, command in group.commands.items():
        summary = " ".join((command.help or "").split("\n\n")[0].split())
        panels.setdefault(command.rich_help_panel or "Commands", []).append((name, summary))
    return panels
