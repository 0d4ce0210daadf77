"""The types of a recipe's values: sizes, times, shares and patterns, parsed and validated."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from ...core.errors import PlanError, RecipeError
from . import patterns
from .sizes import parse_share, parse_size, parse_target, parse_time


def _size(value: object) -> int:
    try:
        return parse_size(value if isinstance(value, int) else str(value))
    except PlanError as error:
        raise ValueError(error.message) from None


def _target(value: object) -> int | str:
    """Bytes of a written size; a share stays as it is written, since the whole is not known yet."""
    try:
        return str(value) if parse_target(str(value), 10**9) != parse_target(str(value), 10**8) else _size(value)
    except PlanError as error:
        raise ValueError(error.message) from None


def _share(value: object) -> object:
    """The number of a written share; a number is checked by its limits."""
    if not isinstance(value, str):
        return value
    try:
        return parse_share(value)
    except PlanError as error:
        raise ValueError(error.message) from None


def _time(value: object) -> object:
    """The seconds of a time with its unit. A number alone is refused: its unit is unknown."""
    if not isinstance(value, str):
        raise ValueError("must be a time such as 90s, 10m or 1.5h")
    try:
        return parse_time(value)
    except RecipeError as error:
        raise ValueError(error.message) from None


def _patterns(value: object) -> tuple[str, ...]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("must be a layer pattern or a list of them")
    return tuple(patterns.check(entry) for entry in entries)


Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns, json_schema_input_type=str | list[str])]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
Share = Annotated[float, Field(gt=0, le=1), BeforeValidator(_share, json_schema_input_type=float | str)]
Target = Annotated[int | str, BeforeValidator(_target, json_schema_input_type=int | str)]
Time = Annotated[
    float,
    BeforeValidator(_time, json_schema_input_type=str),
    PlainSerializer(lambda seconds: None if seconds is None else f"{seconds}s", str | None),
]
