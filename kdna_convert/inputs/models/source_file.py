"""The file whose code builds a MODEL, found without importing anything."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from .names import ModelName, answer


def source_file(name: ModelName) -> Path | None:
    """The resolved file: a factory's module, or the config.json of a local-dir. None where there is none."""
    try:
        found = _source(name)
        found = None if found is None else found.resolve()
    except (OSError, ValueError, RuntimeError):  # not a path, or a loop of links
        return None
    return found if found is not None and answer(found.is_file) else None


def _source(name: ModelName) -> Path | None:
    if name.source == "file":
        return Path(name.path)
    if name.source == "module":
        return _module_file(name.path)
    return Path(name.path.removeprefix("local-dir:"), "config.json") if name.path.startswith("local-dir:") else None


def _module_file(module: str) -> Path | None:
    """The file of a module, as an import from the current directory finds it."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file else None
    places = [str(Path.cwd()), *sys.path]
    spec, parts = None, module.split(".")
    for name in (".".join(parts[: depth + 1]) for depth in range(len(parts))):
        if name in sys.modules:
            places = list(getattr(sys.modules[name], "__path__", []))
            continue
        spec = _spec(name, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin else None


def _spec(name: str, places: list[str]) -> ModuleSpec | None:
    """By these directories, else by the finders of editable installations."""
    # by the last part of the name: a whole one needs its parent to be imported
    found = PathFinder.find_spec(name.rpartition(".")[2], places)
    finders = [finder for finder in sys.meta_path if finder is not PathFinder and hasattr(finder, "find_spec")]
    return found or next(filter(None, (finder.find_spec(name, places) for finder in finders)), None)
