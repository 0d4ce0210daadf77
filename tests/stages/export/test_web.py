"""The folder for the browser: complete, compressed, and with torch's outputs in a real browser."""

import functools
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import chromium
from support.exports import small_conversion
from torch import Tensor, nn

from kdna_convert.core.errors import ModelError
from kdna_convert.core.specs import DataConfig
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.export import write_export
from kdna_convert.stages.export.web import BINARY, MODEL, PAGE, SCRIPT, SETTINGS, Web, compressed, find_runtime

for library in Web.needs:
    pytest.importorskip(library)

DATA = DataConfig(input_size=(3, 12, 12), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=1.0)


@pytest.fixture
def conversion() -> Conversion:
    made = replace(small_conversion(), data=DATA)
    made.model.pretrained_cfg |= {"label_names": ("ant", "bee", "cat", "dog")}  # type: ignore[operator]
    return made


def test_the_folder_holds_the_page_the_graph_and_the_installed_runtime(
    conversion: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, work = tmp_path / "node_modules" / "onnxruntime-web" / "dist", tmp_path / "deep" / "down"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    with pytest.raises(ModelError, match=r"KD312: no node_modules/onnxruntime-web in .*npm install onnxruntime-web"):
        write_export(Web(), conversion, tmp_path / "page")
    assert not (tmp_path / "page").exists()
    runtime.mkdir(parents=True)
    (runtime / SCRIPT).write_text("script")
    (runtime / BINARY).write_bytes(b"binary")
    exported = write_export(Web(), conversion, tmp_path / "page")
    files = {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    assert files.keys() == {MODEL, PAGE, SETTINGS, SCRIPT, f"{BINARY}.gz", "export.json"}
    assert gzip.decompress(files[f"{BINARY}.gz"]) == b"binary"
    assert files[SCRIPT] == b"script"
    assert f"{len(files[MODEL]):,} bytes" in exported.note
    told = json.loads(files[SETTINGS])
    assert (told["mean"], told["names"][1], told["outputs"]) == ([0.5, 0.4, 0.3], "bee", ["logits"])
    assert all(name in files[PAGE].decode() for name in (MODEL, SETTINGS, SCRIPT, f"{BINARY}.gz"))


def test_a_net_that_takes_no_images_is_refused(conversion: Conversion, tmp_path: Path) -> None:
    for size in ((2, 12, 12), (3, 12), (3, 4, 12, 12)):
        sounds = replace(conversion, data=replace(DATA, input_size=size))
        with pytest.raises(ModelError, match="KD312"):
            write_export(Web(), sounds, tmp_path / "page")


@pytest.mark.parametrize(
    "data", [b"", b"abc" * 1000, bytes(np.random.default_rng(0).binomial(9, 0.5, 5000).astype("u1"))]
)
def test_compressed_bytes_are_gzip_and_no_longer_than_usual(data: bytes) -> None:
    assert gzip.decompress(compressed(data)) == data
    assert len(compressed(data)) <= len(gzip.compress(data, 9, mtime=0))
    assert compressed(data) == compressed(data)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Both(nn.Module):
    """A net that returns logits and a picture."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(x), "picture": x.sigmoid()}


def test_a_browser_computes_what_torch_computes(conversion: Conversion, tmp_path: Path) -> None:
    try:
        find_runtime(Path.cwd())
    except ModelError as error:
        pytest.skip(error.message)
    names, model = ("ant", "bee", "cat", "dog"), Both(conversion.model).eval()
    model.pretrained_cfg = {"label_names": names}  # type: ignore[assignment]
    write_export(Web(), replace(conversion, model=model), tmp_path / "page")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    with served(tmp_path / "page") as address, chromium() as browser:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        page.set_input_files("#file", tmp_path / "image.png")
        page.wait_for_selector("body[data-outputs]", timeout=60_000)
        outputs = json.loads(page.evaluate("document.body.dataset.outputs"))
        status, milliseconds, table = (page.inner_text(each) for each in ("#status", "#time", "table"))
        shown = page.evaluate(
            "[...[...document.querySelectorAll('canvas')][1].getContext('2d').getImageData(0, 0, 12, 12).data]"
        )
    image = torch.from_numpy(pixels).movedim(-1, 0)[None] / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (DATA.mean, DATA.std))
    with torch.no_grad():
        logits, picture = model((image - mean) / std).values()
    for output, expected in zip(outputs, (logits, picture), strict=True):
        torch.testing.assert_close(torch.tensor(output), expected.flatten(), atol=1e-4, rtol=1e-4)
    drawn = torch.tensor(shown).view(12, 12, 4)[..., :3].movedim(-1, 0) / 255
    torch.testing.assert_close(drawn, picture[0], atol=1 / 255, rtol=0)
    assert f"net {(tmp_path / 'page' / MODEL).stat().st_size:,} bytes" in status
    assert " ms" in milliseconds
    assert table.split()[0] == names[int(logits.argmax())]
