"""The nine plug-in tables: their names stand for one thing each, and the names of their rows are the recipe's."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from kdna_convert.api.compare import PEERS
from kdna_convert.codecs import CODECS
from kdna_convert.core import plugin_names
from kdna_convert.inputs.recipe import json_schema
from kdna_convert.inputs.recipe.schema import Alternative, Families, Recipe, RepairStep, RoutingChoice
from kdna_convert.routing import ROUTINGS
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.analyze.similarity import METRICS
from kdna_convert.stages.export import EXPORTS
from kdna_convert.stages.latency import RUNTIMES
from kdna_convert.stages.repair import STEPS
from kdna_convert.tasks import TASKS

ROOT = Path(__file__).parent.parent
# Each table, and the file that it is in.
TABLES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "SCHEMES": ("schemes/__init__.py", SCHEMES),
    "ROUTINGS": ("routing/__init__.py", ROUTINGS),
    "CODECS": ("codecs/__init__.py", CODECS),
    "STEPS": ("stages/repair/__init__.py", STEPS),
    "METRICS": ("stages/analyze/similarity.py", METRICS),
    "PEERS": ("api/compare/peers.py", PEERS),
    "EXPORTS": ("stages/export/__init__.py", EXPORTS),
    "TASKS": ("tasks/__init__.py", TASKS),
    "RUNTIMES": ("stages/latency/__init__.py", RUNTIMES),
}
NAMES = {
    "SCHEMES": plugin_names.SchemeName,
    "ROUTINGS": plugin_names.RoutingName,
    "CODECS": plugin_names.CodecName,
    "STEPS": plugin_names.StepName,
    "METRICS": plugin_names.MetricName,
    "EXPORTS": plugin_names.ExportName,
    "TASKS": plugin_names.TaskName,
    "RUNTIMES": plugin_names.RuntimeName,
}


def assigned(path: Path) -> set[str]:
    """The module-level names that a file gives a value."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_its_name_alone(table: str) -> None:
    files = [path for folder in ("kdna_convert", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    ours = [path for path in files if path.name != "standalone_loader.py"]  # never imported from here
    assert [str(path) for path in ours if table in assigned(path)] == [str(ROOT / "kdna_convert" / TABLES[table][0])]


@pytest.mark.parametrize("table", [name for name in TABLES if name not in ("METRICS", "PEERS")])
def test_a_row_is_filed_under_its_own_name(table: str) -> None:
    rows = TABLES[table][1]
    assert list(rows) == [row.name for row in rows.values()]


@pytest.mark.parametrize("table", NAMES)
def test_the_names_as_a_type_are_the_tables_keys(table: str) -> None:
    assert sorted(get_args(NAMES[table])) == sorted(TABLES[table][1])


def literals(field: FieldInfo) -> set[str]:
    """The strings that a field of the recipe takes."""
    parts = [field.annotation, *get_args(field.annotation)]
    return {text for part in parts for text in get_args(part) if isinstance(text, str)}


def test_a_recipe_takes_every_row_and_nothing_else() -> None:
    assert literals(Recipe.model_fields["scheme"]) == {*SCHEMES, "dense"}
    assert literals(Alternative.model_fields["scheme"]) == {*SCHEMES}
    assert literals(RoutingChoice.model_fields["name"]) == {*ROUTINGS, "none"}
    assert literals(Recipe.model_fields["codec"]) == {*CODECS}
    assert literals(RepairStep.model_fields["name"]) == {*STEPS}
    assert literals(Recipe.model_fields["task"]) == {*TASKS}
    assert literals(Families.model_fields["metric"]) == {*METRICS}


def test_the_json_schema_of_a_recipe_takes_every_step_and_routing_by_its_bare_name() -> None:
    """Where a mapping may be shortened to a name, the names are listed a second time."""
    enums = [set(values) for values in enumerations(json_schema())]
    assert {*STEPS} in enums
    assert {*ROUTINGS, "none"} in enums
    assert all(not values & {*STEPS} or values == {*STEPS} for values in enums)


def enumerations(value: Any) -> list[list[str]]:
    """Every `enum` in a JSON schema."""
    if isinstance(value, list):
        return [values for item in value for values in enumerations(item)]
    if not isinstance(value, dict):
        return []
    own = [value["enum"]] if isinstance(value.get("enum"), list) else []
    return own + [values for item in value.values() for values in enumerations(item)]
