"""`kdna explore` as it is started, in a real browser: by keyboard and pointer, with no error and no serious barrier."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.browser import chromium
from support.command import FEW_IMAGES, NET, kdna
from support.places import ROOT

from kdna_convert.core.specs import Plan, from_json

pytestmark = pytest.mark.skipif(find_spec("nicegui") is None, reason="needs nicegui")

LAYER = "blocks.1.conv1"
TWO_SCHEMES = ("--set", "alternatives=[{scheme: codebook}]")


def started(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    """`kdna explore`, in a folder for what it writes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kdna_convert", "explore", *arguments, "--no-open"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explore")


@pytest.fixture(scope="module")
def address(images: Path, place: Path) -> Iterator[str]:
    """The address that the command prints. At the end, Ctrl-C is exit code 0 and nothing was complained of."""
    process = started([NET, "--data", str(images), *FEW_IMAGES, *TWO_SCHEMES, "-q"], place)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (0, "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page. Nothing may be reported on its console, and nothing be loaded from elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened, errors = context.new_page(), []
    opened.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            errors.append(request.url) if urlsplit(request.url).hostname not in ("127.0.0.1", None) else None
        ),
    )
    opened.goto(address)
    opened.wait_for_selector("#chart svg")  # the last that is shown
    for count in range(opened.locator("#edits button").count(), 0, -1):  # the session is the server's; tests share it
        opened.click("#edits button >> nth=0")
        opened.wait_for_function("count => document.querySelectorAll('#edits li').length < count", arg=count)
    yield opened
    assert errors == []
    context.close()


def params(page: Any) -> int:
    return int(page.inner_text("#figures dd >> nth=0").split()[0].replace(",", ""))


def changed(page: Any, before: int) -> int:
    page.wait_for_function(
        "before => !document.querySelector('#figures dd')?.textContent.startsWith(before)", arg=f"{before:,}"
    )
    return params(page)


def test_the_address_ends_without_the_token(page: Any, address: str) -> None:
    assert "token=" in address
    assert urlsplit(page.url)._replace(query="").geturl() == page.url
    assert page.evaluate("document.cookie") == ""


def test_the_budget_is_dragged_by_keyboard(page: Any) -> None:
    before = params(page)
    page.focus("#share")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    more = changed(page, before)
    assert more > before
    page.keyboard.press("Home")
    page.wait_for_selector("#problem:not([hidden])")
    assert "cannot be met" in page.inner_text("#problem")
    page.click("#nearest")
    page.wait_for_selector("#problem", state="hidden")
    page.wait_for_selector("#figures dd")
    assert params(page) < before
    page.fill("#percent", "60")
    changed(page, params(page))
    page.check("input[value=macs]")
    page.wait_for_function("document.getElementById('amount').textContent.includes('MACs')")
    page.check("input[value=params]")


@pytest.mark.parametrize(("typed", "least"), [("150", "100"), ("-3", None), ("0", None)])
def test_the_percent_field_shows_the_budget_that_is_used(page: Any, typed: str, least: str | None) -> None:
    page.fill("#percent", "60")
    page.fill("#percent", typed)
    page.press("#percent", "Tab")
    least = least or page.get_attribute("#share", "min")
    assert page.get_attribute("#percent", "min") == page.get_attribute("#share", "min")
    assert page.input_value("#percent") == page.input_value("#share") == least
    page.wait_for_function(
        "least => document.getElementById('amount').textContent.includes(`${least} %`)", arg=f"{float(least):.1f}"
    )
    page.fill("#percent", "")
    page.press("#percent", "Tab")
    assert page.input_value("#percent") == least
    page.fill("#percent", "60")


def test_a_layer_is_excluded_and_forced_and_the_plan_is_written(page: Any, place: Path, images: Path) -> None:
    page.fill("#percent", "60")
    page.focus(f".layer[data-name='{LAYER}']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#editor:not([hidden])")
    assert page.inner_text("#editor-title") == LAYER
    page.click("#exclude")
    page.wait_for_selector("#edits li")
    page.wait_for_selector(f".layer.skipped.edited[data-name='{LAYER}']")
    assert "Costs" in page.inner_text("#edits small")
    page.click(".layer[data-name='blocks.0.conv1']")
    page.wait_for_function("document.getElementById('editor-title').textContent === 'blocks.0.conv1'")
    page.select_option("#way", label="codebook")
    page.fill("#size", "6")
    page.click("#force")
    page.wait_for_function("document.querySelectorAll('#edits li').length === 2")
    page.fill("form[data-what=plan] input", "steered.json")
    page.press("form[data-what=plan] input", "Enter")
    page.wait_for_function("document.getElementById('told').textContent.includes('Written')")
    plan = from_json(Plan, (place / "steered.json").read_bytes())
    stored = {name: family for family in plan.families for name in family.members}
    assert LAYER not in stored
    assert (stored["blocks.0.conv1"].scheme, stored["blocks.0.conv1"].options["rank"]) == ("codebook", 6)
    done = kdna(
        "convert", NET, "--data", images, *FEW_IMAGES, "--plan", place / "steered.json", "-o", place / "by-hand"
    )
    assert done.exit_code == 0, done.stderr


def test_a_file_is_replaced_only_after_a_question(page: Any, place: Path) -> None:
    (place / "mine.json").write_text("mine")
    page.fill("form[data-what=plan] input", "mine.json")
    page.click("form[data-what=plan] button")
    page.wait_for_selector("#replace:not([hidden])")
    page.keyboard.press("Enter")  # the focus is on the answer that keeps it
    page.wait_for_selector("#replace", state="hidden")
    assert (place / "mine.json").read_text() == "mine"
    page.click("form[data-what=plan] button")
    page.click("#yes")
    page.wait_for_function("document.getElementById('told').textContent.includes('Written')")
    assert (place / "mine.json").read_text() != "mine"


def test_an_edit_that_cannot_be_kept_is_said_beside_the_layer(page: Any) -> None:
    page.click(f".layer[data-name='{LAYER}']")
    page.wait_for_selector("#editor:not([hidden])")
    page.fill("#size", "9999")
    page.click("#force")
    page.wait_for_selector("#refused:not([hidden])")
    assert "cannot have rank 9999" in page.inner_text("#refused")
    page.fill("#size", "3.5")
    page.click("#force")
    page.wait_for_function("document.getElementById('refused').textContent.includes('must be a whole number')")
    page.focus("#size")
    page.keyboard.type("e")
    page.click("#force")
    page.wait_for_function("document.getElementById('refused').textContent.includes('must be a whole number')")


def test_a_conversion_is_started_and_its_end_is_told(page: Any, place: Path) -> None:
    page.fill("form[data-what=convert] input", "converted")
    page.click("form[data-what=convert] button")
    page.wait_for_selector("#progress:not([hidden])")
    page.wait_for_function("document.getElementById('told').textContent.includes('report.html')", timeout=120_000)
    assert (place / "converted" / "model.safetensors").is_file()
    assert page.is_hidden("#progress")


def test_a_conversion_is_stopped(page: Any, place: Path) -> None:
    page.fill("form[data-what=convert] input", "stopped")
    page.click("form[data-what=convert] button")
    page.click("#cancel")
    page.wait_for_function("document.getElementById('told').textContent.includes('Stopped')")
    assert not (place / "stopped").exists()


def test_what_was_asked_survives_a_reload(page: Any) -> None:
    page.click(f".layer[data-name='{LAYER}']")
    page.click("#exclude")
    page.wait_for_selector("#edits li")
    page.reload()
    page.wait_for_selector("#edits li")
    assert LAYER in page.inner_text("#edits")


def test_ctrl_c_ends_a_conversion_and_both_sides_say_so(browser: Any, images: Path, tmp_path: Path) -> None:
    process = started([NET, "--data", str(images), *FEW_IMAGES, "-q"], tmp_path)
    assert process.stdout is not None
    page = browser.new_page()
    page.goto(process.stdout.readline().strip())
    page.wait_for_selector("#chart svg")
    page.click("form[data-what=convert] button")
    page.wait_for_selector("#progress:not([hidden])")
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (0, "kdna: the running conversion was ended; nothing was written\n")
    page.wait_for_selector("#lost:not([hidden])")
    page.wait_for_selector("#progress", state="hidden")
    page.close()


@pytest.mark.parametrize("width", [320, 1200, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier_at_any_width(page: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.click(f".layer[data-name='{LAYER}']")
    page.wait_for_selector("#editor:not([hidden])")
    page.wait_for_selector("#chart svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_requests_without_the_token_or_for_another_host_are_refused(address: str) -> None:
    port = urlsplit(address).port
    assert port is not None

    def status(path: str, host: str, **more: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", path, headers={"Host": host, **more})
            with connection.getresponse() as response:
                return response.status

    own, upgrade = (
        f"127.0.0.1:{port}",
        {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )
    socket = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    for path in ("/", "/?token=wrong", "/_nicegui/whatever", "/docs", socket.replace("websocket", "polling")):
        assert status(path, own) == 403
    assert status(f"/?{urlsplit(address).query}", f"evil.example:{port}") == 403
    assert status(f"/?{urlsplit(address).query}", own) == 303
    assert status(socket, own, **upgrade) == 403
    token = urlsplit(address).query.removeprefix("token=")
    cookie = f"kdna-explore-{port}={token}"
    assert status(socket, own, Cookie=cookie, Origin="http://evil.example", **upgrade) == 403
    assert status(socket, own, Cookie=cookie, Origin=f"http://{own}", **upgrade) == 101
