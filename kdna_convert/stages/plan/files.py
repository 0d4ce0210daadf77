"""Plans and databases as files. No torch: solving a new budget from a database is faster than importing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...core.atomic import write_text
from ...core.choices import Database
from ...core.errors import PlanError, reason_of
from ...core.fingerprint import Fingerprint, digest, parts_of, place_in
from ...core.specs import Plan, from_json, to_json
from ...inputs.recipe import Recipe
from .budget import budget_of
from .costs import original_totals
from .knapsack import solve

# What a file in a folder of databases is called.
ERRORS = "errors.json"
# Keys of a recipe that a database does not depend on.
_LATER = {"budget", "fit", "repair", "repair_time", "nested", "codec", "finetune", "sharing", "export"}


def fingerprint(recipe: Recipe, **made_from: Any) -> str:
    """The hash of the recipe without its budget, and of everything else given."""
    kept = recipe.model_dump(mode="json", exclude=_LATER)
    files = {key: _stamp(value) for key, value in made_from.items() if key in ("checkpoint", "data")}
    values = {key: str(value) for key, value in sorted(made_from.items())}
    return digest([kept, values, files])


def request_fingerprint(
    recipe: Recipe, model: str | Path, data: str | Path | None, given: Mapping[str, Any]
) -> Fingerprint:
    """The fingerprint of a database, from the arguments of a call: no model needs to be loaded to check it.

    Args:
        recipe: The recipe.
        model: The model's name, or its digest if it is not on disk.
        data: The path of the images, or their digest.
        given: checkpoint, its key and prefix, inputs and data_free, if they are given.
    """
    recipe = recipe.model_copy(update={"task": given.get("task") or recipe.task})
    checkpoint, data_free = given.get("checkpoint"), bool(given.get("data_free"))
    chosen = {name: given[name] for name in ("checkpoint_key", "checkpoint_prefix") if given.get(name)}
    inputs = dict(given.get("inputs") or {})
    how = {"inputs": inputs, "data_free": data_free, **chosen}
    whole = fingerprint(recipe, model=model, data=data, checkpoint=checkpoint, **how)
    kept = recipe.model_dump(mode="json", exclude=_LATER)
    settings = [kept.pop("calibration"), kept.pop("seed"), str(inputs), data_free]
    parts = parts_of(
        model=[str(model), str(checkpoint), _stamp(checkpoint), *chosen.items()],
        recipe=kept,
        data=[str(data), _stamp(data)],
        settings=settings,
    )
    return Fingerprint(whole, parts)


def _stamp(place: Any) -> list[int] | None:
    """Size and modification time of a file, to detect another file with the same name."""
    path = Path(place) if isinstance(place, str | Path) else None
    if path is None or not path.is_file():
        return None
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def read_database(path: str | Path, expected: Fingerprint) -> Database | None:
    """The database in a file, or in a folder of such files; None if there is no such file.

    Raises:
        PlanError: KD505 if the file is no database or was made from something else.
    """
    path = place_in(path, ERRORS, expected.whole)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PlanError("KD505", f"{path}: cannot be read: {error.strerror}") from None
    try:
        database = from_json(Database, text)
    except ValidationError:
        raise PlanError("KD505", f"{path}: not a database of this version of kdna; delete it") from None
    expected.require(path, database.fingerprint, database.parts)
    return database


def write_database(path: str | Path, database: Database) -> None:
    """Write a database for `read_database`; in a folder, as a new file. Raises FolderError KD604 if it cannot."""
    write_text(place_in(path, ERRORS, database.fingerprint), to_json(database))


def read_plan(path: str | Path) -> Plan:
    """A plan from a file, perhaps edited by hand. Raises PlanError KD502 with the first wrong field."""
    try:
        return from_json(Plan, Path(path).read_bytes())
    except OSError as error:
        raise PlanError("KD502", f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PlanError("KD502", f"{path}: {where}: {reason_of(first)}") from None


def replan(path: str | Path | None, expected: Fingerprint, recipe: Recipe, **budget: Any) -> Plan | None:
    """The plan for a budget, solved from the database file; None if there is no such file."""
    database = None if path is None else read_database(path, expected)
    return None if database is None else solve(database, budget_of(original_totals(database), recipe, **budget))
