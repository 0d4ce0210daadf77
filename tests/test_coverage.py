"""Nets of timm and torchvision convert, and their loaded, folded, merged and factored outputs are equal."""

import importlib.util
import json
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from support.places import ROOT

from kdna_convert.inputs.models.listing import coverage

MOST_PARAMETERS = 60_000_000
DETECTORS = ("rcnn", "retinanet", "fcos", "ssd")
SMALL = (
    *("test_byobnet", "test_convnext", "test_coatnet", "test_efficientnet", "test_resnet"),
    *("torchvision:mnasnet0_5", "torchvision:squeezenet1_1"),
)


@pytest.fixture(scope="module")
def row_of() -> Callable[[str, int], dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("coverage_run", ROOT / "benchmarks" / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[str, int], dict[str, Any]] = module.row_of
    return found


def stratified(count: int) -> list[str]:
    """Nets of as many families as possible, by a fixed seed, of those that the recorded run converted."""
    lines = (ROOT / "benchmarks" / "results" / "coverage.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    families: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["seconds"]):
        if row["outcome"] in ("converted", "with include"):
            families.setdefault(row["family"], []).append(row["net"])
    first = [names[0] for names in families.values()]
    return sorted(random.Random(0).sample(first, min(count, len(first))))


def check(row: dict[str, Any]) -> None:
    assert row["outcome"] in ("converted", "with include"), row
    missing = {"loaded", "folded", "merged", "factored"} - set(row["equal"])
    selects_boxes = any(part in row["net"] for part in DETECTORS)  # rounding changes which boxes are selected
    assert missing <= ({"factored"} if selects_boxes else set())


@pytest.mark.parametrize("name", SMALL)
def test_a_small_net_of_each_kind_converts(name: str, row_of: Callable[[str, int], dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries
        check(row_of(name, MOST_PARAMETERS))


@pytest.mark.slow
def test_sixty_nets_of_different_families_convert(row_of: Callable[[str, int], dict[str, Any]]) -> None:
    for name in stratified(60):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(row_of(name, MOST_PARAMETERS))


def test_at_least_97_percent_of_the_recorded_nets_convert_and_none_ends_in_a_traceback() -> None:
    outcomes = [outcome for outcome in coverage().values() if outcome not in ("no convolutions", "limit")]
    assert not {"traceback", "unequal"} & set(outcomes)
    assert sum(outcome.startswith("converts") for outcome in outcomes) >= 0.97 * len(outcomes)
