"""The reference pages that are generated from the code, as a hook of mkdocs: nothing in them is written by hand.

`pages()` is what the tests read; `on_files` adds the same pages to the site while it is built.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from kdna_convert.cli.app import app
from kdna_convert.codecs import CODECS
from kdna_convert.core.errors import CODES
from kdna_convert.inputs import recipe as recipes
from kdna_convert.routing import ROUTINGS
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.repair import STEPS

ROOT = Path(__file__).parent.parent
SOURCE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
KINDS = {
    "1": "A layer or a step is skipped",
    "2": "Recipe and settings",
    "3": "Model and checkpoint",
    "4": "Data",
    "5": "Plan and budget",
    "6": "Folder",
    "7": "Numerics",
    "8": "Guard",
}


def pages() -> dict[str, str]:
    """Every generated page as Markdown, by its path below docs/."""
    copied = {page: _moved((ROOT / source).read_text(encoding="utf-8")) for source, page in SOURCE.items()}
    return copied | {
        "reference/cli.md": cli_page(),
        "reference/recipes.md": recipes_page(),
        "reference/errors.md": errors_page(),
        "reference/cards.md": cards_page(),
    }


def _moved(text: str) -> str:
    """The text of a page of the root, with its links as they are below docs/."""
    for source, page in SOURCE.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text.replace("](docs/", "](")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site (called by mkdocs)."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of the CLI with its full name: `kdna plan`, `kdna recipe show`."""
    yield from _commands("kdna", get_command(app))


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children: Mapping[str, Any] = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child, inner in children.items():
        yield from _commands(f"{name} {child}", inner)


def cli_page() -> str:
    """Each command with its help, arguments and options."""
    root = get_command(app)
    lines = ["# Command line", "", _paragraph(root.help), "", _paragraph(root.epilog), ""]
    for name, command in commands():
        lines += [f"## {name}", "", _help(command), "", *_usage(name, command), ""]
        panels: dict[str, list[Any]] = {"Arguments": [], "Options": []}
        for param in command.params:
            if not getattr(param, "hidden", False):
                is_argument = param.param_type_name == "argument"
                panel = "Arguments" if is_argument else getattr(param, "rich_help_panel", None) or "Options"
                panels.setdefault(str(panel), []).append(param)
        for panel, params in panels.items():
            rows = [(_flags(param), _default(param), _paragraph(param.help)) for param in params]
            lines += _table((panel, "Default", ""), rows) if rows else []
    return "\n".join(lines)


def _help(command: Any) -> str:
    """A command's help; the examples in it, which are indented, as blocks of code."""
    text = inspect.cleandoc(command.help or "")
    return re.sub(
        r"((?:^    \S.*\n?)+)",
        lambda block: f"\n```sh\n{inspect.cleandoc(block[1])}\n```\n",
        text + "\n",
        flags=re.MULTILINE,
    ).strip()


def _usage(name: str, command: Any) -> list[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    shown = [_argument(param) if param.required else f"[{_argument(param)}]" for param in arguments]
    return ["```text", " ".join([name, *shown, "[OPTIONS]"]), "```"]


def _argument(param: Any) -> str:
    return str(param.metavar or param.name).strip("{}[]").upper()


def _flags(param: Any) -> str:
    values = "\\|".join(_choices(param))
    if param.param_type_name == "argument":
        return f"`{_argument(param)}` {values}".strip()
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} {values or param.metavar or ''}".strip()


def _choices(param: Any) -> list[str]:
    """The values that a parameter takes, where they are listed."""
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(one.value) for one in annotation]
    return [str(one) for one in get_args(annotation)] if get_origin(annotation) is Literal else []


def _default(param: Any) -> str:
    value = param.default.value if isinstance(param.default, Enum) else param.default
    if param.required:
        return "required"
    return "" if value in (None, False) or callable(value) else f"`{value}`"


def errors_page() -> str:
    """Every code with its explanation, by kind."""
    lines = [
        "# Error and reason codes",
        "",
        "The tool prints these codes in errors, notes and tables. `kdna explain CODE` prints the same text.",
    ]
    kind = ""
    for code, text in CODES.items():
        if code[2] != kind:
            kind = code[2]
            lines += ["", f"## KD{kind}xx: {KINDS[kind]}"]
        lines += ["", f"### {code}", "", text]
    return "\n".join(lines) + "\n"


def recipes_page() -> str:
    """The keys of a recipe from its schema, the options of each plug-in, and the bundled recipes."""
    schema = recipes.json_schema()
    lines = [
        "# Recipes",
        "",
        "A recipe is a YAML file that says what becomes of each layer. `kdna recipe validate FILE` checks one,",
        "`kdna recipe schema` prints the JSON schema for an editor.",
        "",
        "## A recipe with every key",
        "",
        "```yaml",
        _example(recipes.__doc__ or ""),
        "```",
        "",
        "## Keys",
        "",
        *_keys(schema),
    ]
    for name, section in schema["$defs"].items():
        if "properties" in section:
            lines += [f"### {name}", "", _paragraph(section.get("description")), "", *_keys(section)]
    for title, table in (("schemes", SCHEMES), ("routings", ROUTINGS), ("repair steps", STEPS)):
        lines += [f"## Options of {title}", ""]
        rows = [(f"`{name}`", _options(kind), _paragraph(kind.__doc__)) for name, kind in table.items()]
        lines += _table(("Name", "Options and defaults", ""), rows)
    lines += ["## Bundled recipes", ""]
    for name, path in recipes.bundled().items():
        lines += [f"### {name}", "", "```yaml", path.read_text(encoding="utf-8").strip(), "```", ""]
    return "\n".join(lines)


def _example(text: str) -> str:
    """The longest indented block of a docstring."""
    blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return inspect.cleandoc("\n" + max(blocks, key=len))


def _keys(section: Mapping[str, Any]) -> list[str]:
    required = section.get("required", [])
    rows = []
    for key, value in section["properties"].items():
        default = "required" if key in required else _literal(value.get("default"))
        rows.append((f"`{key}`", _type(value), default, _paragraph(value.get("description"))))
    return _table(("Key", "Value", "Default", ""), rows)


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(one) for one in value["anyOf"] if one.get("type") != "null"))
    kind = str(value.get("type", "any"))
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    limits = [
        f"{sign} {value[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in value
    ]
    return " ".join([kind, *limits])


def _options(kind: Any) -> str:
    shown = []
    for option in fields(kind):
        default = option.default_factory() if option.default_factory is not MISSING else option.default
        if option.init and default is not MISSING:
            shown.append(f"`{option.name}: {default}`")
    return ", ".join(shown) or "none"


def _literal(value: object) -> str:
    return "" if value in (None, {}, [], "") or isinstance(value, dict) else f"`{value}`"


def cards_page() -> str:
    """The card of each scheme, routing, codec and repair step: the docstring of its module."""
    lines = [
        "# Cards",
        "",
        "What each plug-in does, its source, its cost and when it loses: the docstring of its module.",
        "",
    ]
    tables: dict[str, dict[str, Any]] = {
        "Schemes": dict(SCHEMES),
        "Routings": dict(ROUTINGS),
        "Codecs": {name: type(codec) for name, codec in CODECS.items()},
        "Repair steps": dict(STEPS),
    }
    for title, table in tables.items():
        lines += [f"## {title}", ""]
        modules: dict[str, list[str]] = {}
        for name, kind in table.items():
            modules.setdefault(kind.__module__, []).append(name)
        for module, names in modules.items():
            text = inspect.cleandoc(sys.modules[module].__doc__ or "")
            lines += [f"### {', '.join(names)}", "", text, ""]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    def row(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cells) + " |"

    return [row(head), row(("---",) * len(head)), *(row(cells) for cells in rows), ""]


def _paragraph(text: str | None) -> str:
    """A docstring in one cell of a table, its attributes a line each."""
    summary, _, attributes = inspect.cleandoc(text or "").partition("\nAttributes:\n")
    lines = [summary, *re.split(r"^    (?=\w+: )", attributes, flags=re.MULTILINE)[1:]]
    cells = [re.sub(r"^(\w+): ", r"`\1`: ", line) if place else line for place, line in enumerate(lines)]
    return "<br>".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells)
