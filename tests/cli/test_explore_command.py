"""`kdna explore` on the command line: what it refuses before the work, and what it prints."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from support.command import FEW_IMAGES, NET, TINY, kdna

from kdna_convert.explore import server


def test_a_missing_extra_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    done = kdna("explore", "no_such_net", "--data", "nowhere")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error KD513" in done.stderr
    assert "kdna-convert[explore]" in done.stderr


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_a_port_that_is_taken_is_told_before_the_work() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = kdna("explore", "no_such_net", "--data", "nowhere", "--port", other.getsockname()[1])
    assert done.exit_code == 2
    assert "error KD513" in done.stderr


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("model", "code"), [("no_such_net", "KD301"), (f"{TINY}:nothing_to_convert", "KD306")], ids=["name", "layers"]
)
def test_a_model_that_cannot_be_steered_is_refused(model: str, code: str, images: Path) -> None:
    done = kdna("explore", model, "--data", images, *FEW_IMAGES)
    assert done.exit_code == 2
    assert f"error {code}" in done.stderr


@pytest.mark.usefixtures("installed", "quick_predictions")
@pytest.mark.parametrize("flags", [[], ["--no-open"], ["--json"]])
def test_the_address_is_printed_and_opened(monkeypatch: pytest.MonkeyPatch, images: Path, flags: list[str]) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(server, "serve", lambda session, place, ready: ready("http://127.0.0.1:1/?token=abc"))
    done = kdna("explore", NET, "--data", images, *FEW_IMAGES, *flags)
    address: Any = json.loads(done.stdout)["address"] if "--json" in flags else done.stdout.strip()
    assert (done.exit_code, address) == (0, "http://127.0.0.1:1/?token=abc")
    assert "Ctrl-C" in done.stderr
    assert opened == ([] if "--no-open" in flags else [address])


@pytest.mark.usefixtures("installed", "quick_predictions")
def test_the_page_knows_the_options_that_its_commands_repeat(
    monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda session, place, ready: served.append(session.given))
    options = ("--scheme", "cp", "--database", tmp_path / "errors.json", "--threads", "1", "--data-free")
    done = kdna("explore", NET, "--data", images, *FEW_IMAGES, *options, "--no-open")
    assert done.exit_code == 0, done.stderr
    (given,) = served
    assert given.recipe == ("--set", FEW_IMAGES[1], "--set", FEW_IMAGES[3], "--scheme", "cp")
    assert given.latency == ("--threads", "1")
    assert given.database == ("--database", str(tmp_path / "errors.json"))
