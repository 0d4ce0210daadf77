"""In a browser, a map tells the value of each cell, by pointer and by keyboard, and shows the two kernels."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdna_convert.core.measurements import Analysis, Group, Matrix
from kdna_convert.core.specs import Layer
from kdna_convert.html import ANALYSIS_PARTS, Material, page_of
from kdna_convert.html.picture import pictures_of

NAMES = ("net.a", "net.b", "net.c")
EXPLAINED: Matrix = ((1.0, 0.43, 0.1), (0.4, 1.0, None), (0.1, 0.2, 1.0))
COSINE: Matrix = ((1.0, 0.77, 0.1), (0.77, 1.0, 0.3), (0.1, 0.3, 1.0))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of three layers, open in Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium")
    group = Group("g", NAMES, {"explained": EXPLAINED, "cosine": COSINE}, (0, 0, 1), 0.5, 216)
    analysis = Analysis(tuple(Layer(name, "Conv2d", (8, 8, 3, 3)) for name in NAMES), (group,), (), "explained", 216)
    kernels = {name: pictures_of(np.ones((8, 8, 3, 3)))[0] for name in NAMES[:2]}
    made = page_of(Material("", analysis=analysis, kernels=kernels), ANALYSIS_PARTS)
    file: Path = made.save(tmp_path_factory.mktemp("map") / "page.html")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        shown = opened.new_page()
        shown.goto(file.as_uri())
        yield shown
        opened.close()


def reads(page: Any, text: str) -> None:
    page.wait_for_function(
        "text => document.querySelector('.readout').textContent === text", arg=text, timeout=5000, polling=50
    )


def test_arrow_keys_move_from_cell_to_cell_and_tell_the_value(page: Any) -> None:
    page.locator(".map").focus()
    for keys, text in (
        (["Home", "ArrowUp", "ArrowRight"], "net.a, net.b: explained 0.43"),
        (["ArrowDown", "ArrowRight"], "net.b, net.c: explained undefined"),
        (["PageDown", "End"], "net.c, net.c: explained 1.00"),
    ):
        for key in keys:
            page.keyboard.press(key)
        reads(page, text)


def test_the_pointer_tells_the_value_of_the_cell_below_it(page: Any) -> None:
    box = page.locator(".map").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] / 2)
    reads(page, "net.b, net.a: explained 0.40")


def test_another_measure_has_other_values(page: Any) -> None:
    page.get_by_label("cosine", exact=True).check()
    page.locator(".map").hover(position={"x": 5, "y": 5})
    reads(page, "net.a, net.a: cosine 1.00")
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    reads(page, "net.a, net.b: cosine 0.77")
    page.get_by_label("explained", exact=True).check()


def test_enter_shows_the_two_kernels_and_says_where_there_is_no_picture(page: Any) -> None:
    page.locator(".map").focus()
    for key in ("Home", "PageUp", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".pair figure img").count() == 2
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.locator(".pair figure img").count() == 1
    assert "No picture" in page.locator(".pair").inner_text()
