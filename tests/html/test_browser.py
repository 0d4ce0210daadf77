"""Pages in a real browser: no errors, no serious barrier, every width, light and dark, by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium
from support.pages import HOSTILE, material

from kdna_convert.html import page_of

MANY = tuple(f"stages.{stage}.blocks.{block}.conv{n}" for stage in range(5) for block in range(50) for n in (1, 2))
NAMES = {"plain": material(), "hostile": material(HOSTILE), "500 layers": material(MANY)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The address of each page."""
    folder = tmp_path_factory.mktemp("pages")
    return {name: page_of(each).save(folder / f"{name}.html").as_uri() for name, each in NAMES.items()}


def opened(browser: Any, address: str, width: int = 1200, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page, and the errors that its script and console reported."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    page.on(
        "request", lambda request: errors.append(request.url) if not request.url.startswith(("file:", "data:")) else 0
    )
    page.goto(address)
    return page, errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [320, 1200, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_without_an_error_at_every_width(
    browser: Any, pages: dict[str, str], name: str, width: int, scheme: str, tmp_path: Path
) -> None:
    page, errors = opened(browser, pages[name], width, scheme)
    page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []
    page.close()


def test_the_first_table_fits_a_small_screen(browser: Any, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["plain"], 320)
    box = page.locator("#outcome .scroll").first
    assert box.evaluate("element => element.scrollWidth <= element.clientWidth")
    page.close()


@pytest.mark.parametrize("name", ["plain", "hostile"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier(browser: Any, pages: dict[str, str], name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, _ = opened(browser, pages[name], scheme=scheme)
    for each in page.query_selector_all("details"):
        each.evaluate("element => element.open = true")
    found = axe.Axe().run(page).response["violations"]
    grave = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert grave == []
    page.close()


def test_arrow_keys_walk_through_the_layers_and_their_facts_are_told(browser: Any, pages: dict[str, str]) -> None:
    page, errors = opened(browser, pages["hostile"])
    page.focus(".layer")
    for place, name in enumerate(HOSTILE):
        told = page.inner_text(".detail")
        assert told.startswith(page.locator(".layer").nth(place).get_attribute("data-name"))
        assert ("KD101" in told) == (place == 0), name
        page.keyboard.press("ArrowRight")
    siblings = page.eval_on_selector_all(".layer.sibling", "layers => layers.map((each) => each.dataset.family)")
    assert len({*siblings}) == 1
    assert errors == []
    page.close()


def test_the_pointer_shows_a_layer_too(browser: Any, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["plain"])
    assert page.is_hidden(".detail")
    page.hover(".layer >> nth=2")
    assert "a.conv2" in page.inner_text(".detail")
    page.close()


def test_the_button_changes_between_dark_and_light(browser: Any, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["plain"])
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.click("#theme")
    dark = page.evaluate(color)
    page.click("#theme")
    assert dark != light == page.evaluate(color)
    page.close()


def test_points_of_charts_are_read_by_keyboard(browser: Any, pages: dict[str, str]) -> None:
    page, _ = opened(browser, pages["plain"])
    tips = page.eval_on_selector_all(".tip", "tips => tips.map((each) => [each.tabIndex, each.ariaLabel])")
    assert len(tips) > 5
    assert all(place == 0 and label for place, label in tips)
    page.close()
