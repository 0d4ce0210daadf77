"""Nets of timm and torchvision convert, and their loaded, folded, merged and factored outputs are equal."""

import importlib.util
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from support.places import ROOT

from kdna_convert.inputs.models.listing import coverage

MOST_PARAMETERS = 60_000_000
DETECTORS = ("rcnn", "retinanet", "fcos", "ssd")


@pytest.fixture(scope="module")
def row_of() -> Callable[[str, int], dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("coverage_run", ROOT / "benchmarks" / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[str, int], dict[str, Any]] = module.row_of
    return found


def quickest(count: int) -> list[str]:
    """The quickest net of each of `count` families, the quickest families first, of those that are recorded."""
    families: dict[str, str] = {}
    for row in sorted(recorded(), key=lambda row: row["seconds"]):
        if row["outcome"] in ("converted", "with include"):
            families.setdefault(row["family"], row["net"])
    return list(families.values())[:count]


def recorded() -> list[dict[str, Any]]:
    lines = (ROOT / "benchmarks" / "results" / "coverage.jsonl").read_text().splitlines()
    return list({row["net"]: row for row in map(json.loads, lines)}.values())


def check(row: dict[str, Any]) -> None:
    assert row["outcome"] in ("converted", "with include"), row
    missing = {"loaded", "folded", "merged", "factored"} - set(row["equal"])
    selects_boxes = any(part in row["net"] for part in DETECTORS)  # rounding changes which boxes are selected
    assert missing <= ({"factored"} if selects_boxes else set())


@pytest.mark.parametrize("name", quickest(60))
def test_the_quickest_net_of_sixty_families_converts(name: str, row_of: Callable[[str, int], dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries
        check(row_of(name, MOST_PARAMETERS))


def test_at_least_97_percent_of_the_recorded_nets_convert_and_none_ends_in_a_traceback() -> None:
    outcomes = [outcome for outcome in coverage().values() if outcome not in ("no convolutions", "limit")]
    assert not {"traceback", "unequal"} & set(outcomes)
    assert sum(outcome.startswith("converts") for outcome in outcomes) >= 0.97 * len(outcomes)
