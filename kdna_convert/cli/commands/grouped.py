"""A command whose options are the fields of dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, get_annotations, signature
from typing import Any


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type become that class's fields on the command line.

    typer reads a command's signature, so the wrapper carries one in which every group is spread out.
    """
    own = signature(function, eval_str=True).parameters.values()
    groups: dict[str, Any] = {each.name: each.annotation for each in own if is_dataclass(each.annotation)}
    nested = [_parameters(groups[each.name]) if each.name in groups else [each] for each in own]
    spread = [each.replace(kind=Parameter.KEYWORD_ONLY) for parameters in nested for each in parameters]

    @wraps(function)
    def command(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        function(**values)

    command.__signature__ = Signature(spread)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in spread}
    return command


def _parameters(group: Any) -> list[Parameter]:
    """What the dataclass is made from, its annotations evaluated."""
    hints = {name: hint for base in group.__mro__ for name, hint in get_annotations(base, eval_str=True).items()}
    return [each.replace(annotation=hints[each.name]) for each in signature(group).parameters.values()]
