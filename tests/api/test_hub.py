"""A converted net goes to the Hub and comes back, over HTTP to a hub on this machine. Errors are one line."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

import kdna_convert as kdna
from kdna_convert.api import hub
from kdna_convert.core.errors import FolderError

FOLDER = Path(__file__).parents[1] / "folders" / "digits"
COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's API that one model needs."""

    files: dict[str, bytes]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/create"):
            self.answer({"url": "https://huggingface.co/mine/half"})
        elif self.path.endswith("/validate-yaml"):
            self.answer({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            asked = [each["path"] for each in json.loads(body)["files"]]
            self.answer({"files": [{"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in asked]})
        elif "/commit/" in self.path:
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            self.answer({"commitUrl": f"https://huggingface.co/mine/half/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({}, 404)

    def do_GET(self) -> None:
        if not self.path.split("?")[0].startswith(("/api/models/mine/half", "/mine/half/")):
            self.answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in self.path:
            data = self.files[self.path.split("/resolve/")[1].split("/", 1)[1]]
            self.answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')
        elif "/tree/" in self.path:
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self.answer(rows)
        else:
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": "mine/half", "sha": COMMIT, "siblings": siblings})

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """The files on a hub that runs as long as the test."""
    held: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Hub,), {"files": held}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    made = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **given: made(endpoint=endpoint, **given | {"token": "hf_x"}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield held
    server.shutdown()
    server.server_close()


def test_a_folder_goes_to_the_hub_and_comes_back(files: dict[str, bytes], tmp_path: Path) -> None:
    sent = tmp_path / "half"
    shutil.copytree(FOLDER, sent)
    (sent / "private.txt").write_text("mine")
    assert hub.push_to_hub(sent, "mine/half").endswith(COMMIT)
    assert files == {each.name: each.read_bytes() for each in FOLDER.iterdir()}
    hub.pull("mine/half", tmp_path / "back")
    assert {each.name: each.read_bytes() for each in (tmp_path / "back").iterdir()} == files
    with torch.no_grad():
        images = torch.ones(1, 1, 8, 8)
        assert torch.equal(kdna.from_pretrained("mine/half")(images), kdna.load(FOLDER)(images))
        assert torch.equal(kdna.from_pretrained(FOLDER, folded=True)(images), kdna.load(FOLDER, folded=True)(images))


def test_a_conversion_is_saved_and_sent(files: dict[str, bytes], tmp_path: Path) -> None:
    conversion = kdna.open_folder(FOLDER)
    assert kdna.save_pretrained(conversion, tmp_path / "half", repo_id="mine/half") == tmp_path / "half"
    assert files["model.safetensors"] == (tmp_path / "half" / "model.safetensors").read_bytes()
    files.clear()
    hub.push_to_hub(conversion, "mine/half")
    assert files.keys() == {each.name for each in FOLDER.iterdir()}


def test_a_damaged_folder_is_not_sent_and_a_damaged_repository_not_kept(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    sent = tmp_path / "half"
    shutil.copytree(FOLDER, sent)
    (sent / "plan.json").write_text("{}")
    with pytest.raises(FolderError, match="KD603"):
        hub.push_to_hub(sent, "mine/half")
    assert not files
    files |= {each.name: each.read_bytes() for each in sent.iterdir()}
    with pytest.raises(FolderError, match="KD603"):
        hub.pull("mine/half", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_missing_repository_and_a_wrong_name_are_one_line(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"KD612: other/net: .*not on the Hub, or private") as refused:
        hub.pull("other/net", tmp_path / "back")
    assert "\n" not in str(refused.value)
    with pytest.raises(FolderError, match=r"KD612: a/b/c: "):
        kdna.from_pretrained("a/b/c")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FolderError, match="KD601"):
        hub.pull("mine/half", tmp_path / "mine")


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **given: made(endpoint="http://127.0.0.1:1", **given))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for send in (lambda: hub.push_to_hub(FOLDER, "mine/half"), lambda: hub.fetched("mine/half")):
        with pytest.raises(FolderError, match=r"KD612: mine/half: ") as refused:
            send()
        assert "\n" not in str(refused.value)


def test_a_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    conversion: Any = kdna.open_folder(FOLDER)
    validate_repo_id("mine/half")
    card = ModelCard.load(kdna.save(conversion, tmp_path / "half") / "README.md")
    assert card.data.library_name == "kdna"
    assert card.data.base_model is None  # it is not on the Hub
    assert card.data.pipeline_tag == "image-classification"
    assert f"{conversion.plan.planned.params:,}" in card.text
