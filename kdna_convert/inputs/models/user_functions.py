"""A function of the user's own, `file.py:function` or `package.module:function`, for --metric and --outputs."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from ...core.errors import KdnaError, ModelError, cause
from .building import module_of
from .names import parse_name


def user_function(given: str | Callable[..., Any], flag: str) -> Callable[..., Any]:
    """The function that is given, or that a name finds. Its file is run.

    Raises:
        ModelError: KD314 where there is none.
    """
    if callable(given):
        return given
    try:
        name = parse_name(given)
        if name.source not in ("file", "module") or name.args or name.kwargs:
            raise ModelError("KD314", f"{flag} {given}: write it as file.py:function")
        if name.source == "file" and not Path(name.path).is_file():
            raise ModelError("KD314", f"{flag} {given}: no such file")
        function = attrgetter(name.factory)(module_of(name))
    except KdnaError as error:
        raise ModelError(
            "KD314", error.message if flag in error.message else f"{flag} {given}: {error.message}"
        ) from error
    except Exception as error:  # the file is user code and may raise anything
        raise ModelError("KD314", f"{flag} {given}: {cause(error)}") from error
    if not callable(function):
        raise ModelError("KD314", f"{flag} {given} is a {type(function).__name__}, not a function")
    own: Callable[..., Any] = function
    return own
