"""Read a recipe from a YAML file or by a bundled name, apply overrides and validate it. Every error has its line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ...core.errors import RecipeError, reason_of
from ...core.specs import Options
from ..bundled_files import bundled_files
from . import yamlfile
from .schema import DENSE, SECTIONS, Recipe
from .yamlfile import Places


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: A YAML file, or the name of a bundled recipe.
        overrides: `a.b=c`, each applied to the YAML: c is YAML too.

    Raises:
        RecipeError: KD201 (unreadable), KD202 (unknown key), KD203 (invalid value), KD206 (no such bundled recipe).
    """
    path = Path(source)
    if not path.is_file():
        recipes = bundled()
        if source not in recipes:
            raise _not_found(source, list(recipes))
        path = recipes[source]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("KD201", f"{source} cannot be read: {error}") from None
    return parse_recipe(text, overrides, name=path.name)


def _not_found(source: str, names: list[str]) -> RecipeError:
    if Path(source).name != source or Path(source).suffix in (".yaml", ".yml"):
        return RecipeError("KD201", f"there is no recipe file {source}")
    return RecipeError("KD206", f"no bundled recipe {source!r}{_meant(source, names)}; there are {', '.join(names)}")


def parse_recipe(text: str, overrides: Sequence[str] = (), *, name: str = "recipe") -> Recipe:
    """Read a recipe from YAML text. Its error messages begin with `name`. Raises as load_recipe does."""
    try:
        value, lines = yamlfile.parse(text)
    except yamlfile.MarkedError as error:
        raise RecipeError("KD201", f"{name} line {error.line}: {error}") from None
    if not isinstance(value, dict):
        raise RecipeError("KD201", f"{name} is not a recipe; the shortest is one line, `scheme: basis`")
    places = Places(name, lines)
    for override in overrides:
        _apply(value, override, places)
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise _explain(error, places) from None
    if overrides:
        changes = "".join(f"# {name} with --set {' '.join(override.split())}\n" for override in overrides)
        text = changes + yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    recipe._text, recipe._places = text, places
    return recipe


def _apply(value: dict[str, Any], override: str, places: Places) -> None:
    """Apply `a.b=c` in place. c is YAML; a number among the keys is a list index from 0; missing sections are added."""
    keys, equals, text = override.partition("=")
    if not equals or not all(keys.split(".")):
        raise RecipeError("KD203", f"--set {override}: write it as key=value, for example options.rank=32")
    try:
        new = yamlfile.parse(text)[0]
    except yamlfile.MarkedError as error:
        raise RecipeError("KD203", f"--set {override}: {error}") from None
    *parents, last = path = [int(key) if key.isdigit() else key for key in keys.split(".")]
    node: Any = value
    for depth, key in enumerate(parents):
        node = node.setdefault(key, {}) if isinstance(node, dict) else _entry(node, key, override, path[:depth])
    if isinstance(node, dict):
        node[last] = new
    else:
        _entry(node, last, override, path[:-1])
        node[last] = new
    places.overridden(tuple(path), f"--set {override}")


def _entry(node: Any, key: str | int, override: str, path: Sequence[str | int]) -> Any:
    if isinstance(node, list) and isinstance(key, int) and key < len(node):
        return node[key]
    problem = f"has {len(node)} entries, counted from 0" if isinstance(node, list) else f"is {node!r}, without keys"
    raise RecipeError("KD203", f"--set {override}: {'.'.join(map(str, path))} {problem}")


# By pydantic's type of error: the sentence in YAML's terms, where pydantic's own uses Python's.
SENTENCES = {
    "dict_type": "must be a mapping, like {key: value}",
    "model_type": "must be a mapping, like {key: value}",
    "tuple_type": "must be a list",
}


def _explain(error: ValidationError, places: Places) -> RecipeError:
    """The first of pydantic's errors as one line."""
    first: ErrorDetails = error.errors(include_url=False)[0]
    path = first["loc"]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        section = SECTIONS[path[0]] if len(path) > 1 else Recipe
        keys = list(section.model_fields)
        meant = _meant(str(path[-1]), keys) or f"; its keys are {', '.join(keys)}"
        return RecipeError("KD202", f"{places(path)}: unknown key{meant}{more}")
    sentence = SENTENCES.get(first["type"], reason_of(first))
    shown = not isinstance(first["input"], (dict, BaseModel)) and first["type"] != "value_error"
    got = f", got {first['input']!r}" if shown else ""
    meant = _meant(first["input"], re.findall(r"'(\w+)'", sentence)) if first["type"] == "literal_error" else ""
    return RecipeError("KD203", f"{places(path)}: {sentence}{got}{meant}{more}")


def _meant(word: object, words: Sequence[str]) -> str:
    close = get_close_matches(str(word), words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Dense:
    """The options of `dense`, which has none."""


def check_options(
    recipe: Recipe, schemes: Mapping[str, type], routings: Mapping[str, type], steps: Mapping[str, type]
) -> None:
    """Check that every option is a field of its scheme, routing or repair step, with its type and in its limits.

    The tables SCHEMES, ROUTINGS and STEPS are arguments because they import torch, which a recipe does not need.

    Raises:
        RecipeError: KD202 (unknown option), KD203 (invalid value).
    """
    schemes = {**schemes, DENSE: Dense}
    if recipe.scheme is not None:
        _check_fields(recipe, schemes[recipe.scheme], recipe.options, ("options",))
    if recipe.routing.name != "none":
        _check_fields(recipe, routings[recipe.routing.name], recipe.routing.options, ("routing",))
    for index, step in enumerate(recipe.repair):
        _check_fields(recipe, steps[step.name], step.options, ("repair", index))
    for index, other in enumerate(recipe.alternatives):
        _check_fields(recipe, schemes[other.scheme], other.options, ("alternatives", index, "options"))
    if recipe.sharing is not None:
        _check_fields(recipe, schemes[recipe.sharing.scheme], recipe.sharing.options, ("sharing", "options"))
        for index, step in enumerate(recipe.sharing.repair):
            _check_fields(recipe, steps[step.name], step.options, ("sharing", "repair", index))
    for index, rule in enumerate(recipe.rules):
        scheme = rule.scheme or recipe.scheme
        if scheme is not None:
            _check_fields(recipe, schemes[scheme], rule.options, ("rules", index, "options"))
        if scheme is not None and recipe.scheme is None:
            _check_fields(recipe, schemes[scheme], recipe.options, ("options",))
        if rule.routing is not None and rule.routing.name != "none":
            _check_fields(recipe, routings[rule.routing.name], rule.routing.options, ("rules", index, "routing"))


def _check_fields(recipe: Recipe, kind: Any, options: Options, path: yamlfile.Path) -> None:
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind) if field.init]
    for key, value in options.items():
        if key not in names:
            meant = _meant(key, names) or f"; its options are {', '.join(names) or 'none'}"
            raise RecipeError("KD202", f"{recipe.where(*path, key)}: {kind.__name__} has no such option{meant}")
        try:
            TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            sentence = reason_of(error.errors(include_url=False)[0])
            message = f"{recipe.where(*path, key)}: {sentence}, got {value!r}"
            raise RecipeError("KD203", message) from None


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors that validate YAML."""
    return Recipe.model_json_schema()


def bundled() -> dict[str, Path]:
    """The bundled recipes by name."""
    return bundled_files("recipes")
