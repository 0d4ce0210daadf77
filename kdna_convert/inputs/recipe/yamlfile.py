"""YAML with line numbers, so that an error about a key can name its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

# The keys and list positions that lead to a value: ("rules", 2, "layers").
Path = tuple[str | int, ...]


class MarkedError(ValueError):
    """Text that is not valid YAML for a recipe; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Places:
    """The place of each key of a recipe: a line of its file, or a --set."""

    def __init__(self, name: str, lines: Mapping[Path, int | str]) -> None:
        self.name = name
        self.lines = dict(lines)

    def overridden(self, path: Path, place: str) -> None:
        """Set `place` for the key at `path`, all keys below it, and every section that was added for it."""
        self.lines = {old: line for old, line in self.lines.items() if old[: len(path)] != path}
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], place)

    def __call__(self, path: Path) -> str:
        """The place and path of a key; a key without a line has that of the nearest key above it."""
        nearest = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in self.lines), None)
        line = None if nearest is None else self.lines[nearest]
        place = line if isinstance(line, str) else f"{self.name} line {line}" if line else self.name
        return f"{place}: {'.'.join(map(str, path))}" if path else place


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads 1e-3 as a number and refuses aliases, with which a few lines can expand to gigabytes."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            raise MarkedError(self.line + 1, "aliases (*name) are not supported")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse(text: str) -> tuple[Any, dict[Path, int]]:
    """The value of one YAML document, and the line, from 1, of every key and list entry in it.

    A key that is given twice is an error. Raises MarkedError.
    """
    lines: dict[Path, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else _value(loader, node, (), lines)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise MarkedError(mark.line + 1 if mark else 1, error.problem or error.context or "not YAML") from None
    except yaml.reader.ReaderError as error:
        raise MarkedError(1 + text.count("\n", 0, error.position), error.reason) from None
    except RecursionError:
        raise MarkedError(1, "nested too deeply") from None


def _value(loader: _Loader, node: Node, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, SequenceNode):
        return [_value(loader, item, (*path, index), lines) for index, item in enumerate(node.value)]
    if not isinstance(node, MappingNode):
        return _scalar(loader, node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(loader, key_node)
        if not isinstance(key, str):
            raise MarkedError(line, f"a key must be a string, got {key!r}")
        inside = (*path, key)
        if key in mapping:
            raise MarkedError(line, f"the key {key!r} is given twice, first on line {lines[inside]}")
        lines[inside] = line
        mapping[key] = _value(loader, value_node, inside, lines)
    return mapping


def _scalar(loader: _Loader, node: Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:  # 2024-13-45 looks like a date
        raise MarkedError(node.start_mark.line + 1, str(error)) from None
