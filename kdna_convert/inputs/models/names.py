"""MODEL: the source of an architecture and its arguments, as one string.

resnet18 · timm:resnet18 · torchvision:resnet18 · hf-hub:timm/resnet18.a1_in1k · local-dir:folder · kdna:digits
path/to/file.py:factory · package.module:factory        each may end in (args, key=value) with Python literals
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import ModelError

# The sources that have a list of names.
LISTS = ("timm", "torchvision", "kdna")
# Prefixes that timm parses itself (hf_hub is timm's older spelling).
_TIMM_SOURCES = ("hf-hub", "hf_hub", "local-dir")
# Characters of a name, and of a name in an error.
_LONGEST, _SHOWN = 4096, 60
# Packages whose factories are not the user's own.
_LIBRARIES = ("timm", "torchvision", "kdna_convert")
# Brackets that a call may begin with: what is before it is a path.
_MOST_BRACKETS = 50
# Modules of this package that have moved: older folders name the old place.
_MOVED = {"kdna_convert.digits": "kdna_convert.inputs.digits", "kdna_convert.layouts": "kdna_convert.api.layouts"}


@dataclass(frozen=True)
class ModelName:
    """A parsed MODEL. `path` is a name in timm's, torchvision's or kdna's list, a .py file or a dotted module."""

    text: str
    source: str  # timm, torchvision, kdna, file, module
    path: str
    factory: str = ""  # for file and module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def parse_name(text: str) -> ModelName:
    """Parse a MODEL without building it. Raises ModelError KD301 (not a name), KD302 (invalid arguments)."""
    if len(text) > _LONGEST or "\0" in text:
        why = f"it has more than {_LONGEST} characters, or a null byte"
        raise ModelError("KD301", f"{text[:_SHOWN]!r} ... is not a model's name: {why}")
    base, args, kwargs = _split_call(text)
    source, path, factory = _source(base)
    if args and source in LISTS:
        raise ModelError("KD302", f"{text}: {source} takes arguments by name only, as in {base}(num_classes=10)")
    return ModelName(text, source, path, factory, args, kwargs)


def answer(ask: Callable[[], bool]) -> bool:
    """The answer to a question about a path; False for what cannot be a path, such as a very long name."""
    try:
        return ask()
    except (OSError, ValueError):
        return False


def factory_note(text: str, checkpoint: str | None) -> str | None:
    """A note for a MODEL whose weights are those that the user's own factory makes; None for any other."""
    try:
        name = parse_name(text)
    except ModelError:
        return None
    own = name.source == "file" or (name.source == "module" and name.path.split(".")[0] not in _LIBRARIES)
    if checkpoint is not None or not own:
        return None
    return f"the weights are those that {name.path}:{name.factory} makes; pass --checkpoint FILE to use trained ones"


def _source(base: str) -> tuple[str, str, str]:
    head, _, rest = base.partition(":")
    if head in (*_TIMM_SOURCES, *LISTS):
        if not rest:
            raise ModelError("KD301", f"{base}: name a model after the colon, as in {head}:NAME")
        return ("timm", base, "") if head in _TIMM_SOURCES else (head, rest, "")
    path, colon, factory = base.rpartition(":")
    if colon and factory and path.endswith(".py"):
        return "file", path, factory
    if colon and factory and all(part.isidentifier() for part in path.split(".")):
        return "module", _MOVED.get(path, path), factory
    if base and answer(Path(base).is_dir):
        way_out = f"open a folder of kdna's with kdna_convert.load; write local-dir:{base} for one of timm's"
        raise ModelError("KD301", f"{base} is a folder, not an architecture; {way_out}")
    if base.endswith((".py", ".py:")):
        raise ModelError("KD302", f"{base}: name the function that builds the model, as in {base.rstrip(':')}:factory")
    if "/" in base or "\\" in base or colon or not base:
        lists = "NAME, timm:NAME, torchvision:NAME, kdna:NAME, hf-hub:OWNER/NAME"
        kinds = f"{lists}, local-dir:FOLDER, FILE.py:FACTORY, MODULE:FACTORY"
        raise ModelError("KD301", f"{base!r} is not a model's name; write one of {kinds}")
    return "timm", base, ""


def _split_call(text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """`name(1, key=2)` -> name, (1,), {"key": 2}. A path may contain parentheses, so the call is what parses as one."""
    if not text.endswith(")") or answer(Path(text).exists):
        return text, (), {}
    starts = [index for index, letter in enumerate(text) if letter == "("]
    for start in starts[:_MOST_BRACKETS]:
        source = f"call{text[start:]}"
        try:
            call = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
            continue
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            return (text[:start], *_literals(call, text, source))
    raise ModelError("KD302", f"{text}: the arguments are not valid Python; write NAME(key=value, ...)")


def _literals(call: ast.Call, text: str, source: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Only literals: a copied name must not run code."""
    values: list[Any] = []
    for node in (*call.args, *(keyword.value for keyword in call.keywords)):
        try:
            values.append(ast.literal_eval(node))
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            value = ast.get_source_segment(source, node)
            raise ModelError("KD302", f"{text}: {value} is not a Python literal (number, string, list ...)") from error
    names = [keyword.arg for keyword in call.keywords]
    if None in names:
        raise ModelError("KD302", f"{text}: write each argument as key=value instead of **")
    count = len(call.args)
    return tuple(values[:count]), {str(name): value for name, value in zip(names, values[count:], strict=True)}
