"""Tables and pictures of results are made from recorded rows, and the README has the figures of the rows."""

from __future__ import annotations

import re

import pytest
from support.benchmarks import benchmark
from support.places import ROOT

tables = benchmark("tables")
plot = benchmark("plot")
zoo = benchmark("zoo")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in tables.PAGES if tables.MARKED.search(path.read_text())], ids=str)
def test_the_tables_of_a_page_are_those_of_the_recorded_rows(path: object) -> None:
    page = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert tables.filled(page, tables.TABLES) == page, "run python benchmarks/tables.py"


def test_every_table_is_in_a_page_and_the_readme_has_that_of_tools() -> None:
    named = {path: tables.names(path.read_text(encoding="utf-8")) for path in tables.PAGES}
    assert {name for found in named.values() for name in found} == set(tables.TABLES)
    assert "tools" in named[ROOT / "README.md"]


def test_a_page_with_another_figure_is_found() -> None:
    (own,) = re.findall(r"kdna, `accurate` \| ([\d.]+)", README)
    page = README.replace(f"| {own} |", "| 12.34 |")
    assert page != README
    assert tables.filled(page, tables.TABLES) == README


def test_a_table_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        tables.filled("<!-- table nothing -->\n<!-- /table -->", tables.TABLES)


@pytest.mark.parametrize("name", plot.pictures())
def test_a_picture_shows_the_recorded_figures(name: str) -> None:
    _, shown = plot.pictures()[name]
    assert plot.sign(shown) in (ROOT / "docs" / f"{name}.svg").read_text(), "run python benchmarks/tables.py"


def test_the_readmes_sentence_has_the_recorded_figures() -> None:
    sentence = r"a ResNet-56 \(top-1 ([\d.]+)\) has ([\d.]+) at 1/20 of its file and ([\d.]+) at 1/40"
    told = re.search(sentence, README)
    found = {row["job"]: row for row in zoo.recorded()}
    small, smaller = (found[f"resnet56-smallest-bytes1-{size}"] for size in (20, 40))
    assert told
    measured = [small["original"], small["result"], smaller["result"]]
    assert [float(figure) for figure in told.groups()] == [
        pytest.approx(100 * net["measures"]["top1"], abs=0.006) for net in measured
    ]


def test_the_readmes_figures_of_super_resolution_are_those_of_the_recorded_rows() -> None:
    told = re.search(r"at 1/8 of its file has a PSNR of ([\d.]+) dB .* int4, at the same size, ([\d.]+) dB", README)
    rows = benchmark("commands").rows(ROOT / "benchmarks" / "results" / "super_resolution.jsonl")
    last = {row["task"]: row["from_original"]["psnr"] for row in rows}
    assert told
    assert [float(figure) for figure in told.groups()] == [
        pytest.approx(last[task], abs=0.06) for task in ("smallest bytes 1/8", "int4")
    ]
