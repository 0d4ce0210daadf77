"""Pages: complete in one file, the same each time, and text of users is text."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.pages import HOSTILE, Reader, material

from kdna_convert.core.comparison import Comparison, ComparisonRow, Rung
from kdna_convert.core.errors import FolderError
from kdna_convert.core.measurements import Evaluation
from kdna_convert.core.shown import shown
from kdna_convert.html import BENCH_PARTS, COMPARISON_PARTS, FOLDER_PARTS, PLAN_PARTS, Material, page_of
from kdna_convert.stages.evaluate.timing import Timing

LOADING = ("src", "href", "srcset", "poster", "data", "action", "formaction", "background")


def test_a_page_loads_nothing() -> None:
    page = page_of(material())
    reader = Reader(page.html)
    loaded = [value for name in LOADING for value in reader.attributes(name)]
    assert loaded
    assert all(value.startswith(("data:", "#")) for value in loaded)
    assert not re.search(r"@import|url\((?!#)", page.html)
    tags = [tag for tag, _ in reader.elements]
    assert not {"iframe", "object", "embed", "base", "form", "image"} & {*tags}
    assert tags.count("script") == 1


def test_text_of_users_is_shown_and_never_run() -> None:
    page = page_of(material(HOSTILE)).html
    reader, plain = Reader(page), Reader(page_of(material()).html)
    for name in HOSTILE:
        assert shown(name) in reader.text
        assert shown(name) in reader.attributes("data-name")
    kinds = {tag for tag, _ in plain.elements}
    assert {tag for tag, _ in reader.elements} == kinds
    handlers = [key for _, attributes in reader.elements for key in attributes if key.startswith("on")]
    assert handlers == []
    assert "\u202e" not in page


def test_equal_results_are_equal_pages() -> None:
    assert page_of(material()).html == page_of(material()).html


def test_each_part_has_a_heading_a_sentence_and_a_place_in_the_contents() -> None:
    reader = Reader(page_of(material()).html)
    sections = [attributes["id"] for tag, attributes in reader.elements if tag == "section"]
    assert len(sections) == len(FOLDER_PARTS)
    links = {value for value in reader.attributes("href") if value.startswith("#")}
    assert {f"#{name}" for name in sections} <= links
    for name in sections:
        assert f"{name}-title" in reader.attributes("id")


def test_ids_are_unique() -> None:
    ids = Reader(page_of(material()).html).attributes("id")
    assert len(ids) == len({*ids})


@pytest.mark.parametrize("missing", ["plan", "report", "recipe", "curve"])
def test_what_is_missing_is_left_out(missing: str) -> None:
    page = page_of(replace(material(), **{missing: None}))
    assert "How it was made" in page.html


def test_a_page_of_nothing_is_a_page() -> None:
    assert "<h1>empty</h1>" in page_of(Material("empty")).html


def test_five_hundred_layers_are_grouped_and_small() -> None:
    names = tuple(f"stages.{stage}.blocks.{block}.conv{n}" for stage in range(5) for block in range(50) for n in (1, 2))
    page = page_of(material(names))
    assert len(page.html) < 3_000_000
    reader = Reader(page.html)
    assert sum((attributes.get("class") or "") == "stage" for _, attributes in reader.elements) == 5
    assert len(reader.attributes("data-name")) == 500


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    page = page_of(material())
    written = page.save(tmp_path / "page.html")
    assert written.read_text(encoding="utf-8") == page.html
    with pytest.raises(FolderError, match="KD601"):
        page.save(written)
    page.save(written, force=True)


def test_a_notebook_shows_the_whole_page_in_a_frame() -> None:
    page = page_of(material(HOSTILE))
    frame = Reader(page._repr_html_())
    assert [tag for tag, _ in frame.elements] == ["iframe"]
    assert frame.attributes("srcdoc") == [page.html]


def test_names_in_charts_are_drawn_as_they_are() -> None:
    timings = tuple(Timing(name, 1, 1, 1, 1.0, 0.1, 1.0, 1.0, 1, 3, "cpu") for name in ("$x$", r"$\nothing{", "<b>"))
    drawn = Reader(page_of(Material("speed", timings=timings), BENCH_PARTS).html).text
    assert all(name in drawn for name in ("$x$", r"$\nothing{", "<b>"))


def test_accuracy_on_labeled_images_comes_before_the_distance_on_held_out_ones() -> None:
    before, after = (Evaluation(top1, None, 50, 0.9, 0.1, 1, 1, 1) for top1 in (0.8, 0.76))
    text = Reader(page_of(replace(material(), original=before, converted=after)).html).text
    assert "Top-1 is 76.00 %, the original's 80.00 %, on 50 labeled images." in " ".join(text.split())
    assert "It gives the same answer on" not in text


def test_a_plan_is_not_told_as_a_result() -> None:
    known = replace(material(), report=None, repairs=True)
    text = Reader(page_of(known, PLAN_PARTS).html).text
    assert "It is expected to give the same answer on" in text
    assert "The square is this plan." in text
    assert not any(word in text for word in ("were converted", "was not measured", "make the same net again"))
    without = Reader(page_of(replace(known, repairs=None), PLAN_PARTS).html).text
    assert "Its accuracy cannot be predicted without images." in without


@pytest.mark.parametrize("names", [tuple(f"l{n}" for n in range(300)), tuple(f"b{n}.conv" for n in range(300))])
def test_layers_that_are_numbered_singly_are_one_stage(names: tuple[str, ...]) -> None:
    reader = Reader(page_of(material(names)).html)
    assert sum((attributes.get("class") or "") == "stage" for _, attributes in reader.elements) == 1


def test_two_recipes_of_kdna_are_two_lines_and_close_values_have_labels_of_their_own() -> None:
    rungs = (Rung("params", 0.5, 500), Rung("bytes", 0.1, 400))
    rows = [ComparisonRow("original", "original", None, params=1000, bytes=4000)]
    rows += [
        ComparisonRow("kdna", "kdna", rung, params=500, bytes=int(4000 * rung.share), agreement=0.999 - 0.002 * place)
        for place, rung in enumerate(rungs)
    ]
    found = Comparison("net", 10, 10, "cpu", rungs, tuple(rows))
    page = page_of(Material("compared", comparison=found), COMPARISON_PARTS).html
    assert {row.line for row in rows[1:]} == {"kdna, by parameters", "kdna, by bytes"}
    drawn = re.findall(r">\s*(9\d(?:\.\d+)? %)\s*</text>", page)
    assert len(drawn) > 3
    assert all(drawn.count(label) <= 2 for label in drawn)  # once in each of the two charts
