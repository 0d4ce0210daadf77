"""What a folder announces is compared with what it has, and with the net, before anything of that size exists."""

import json
import os
import runpy
import shutil
import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.folder_fuzz import reseal
from support.places import TESTS
from support.tiny import net

from kdna_convert.core.errors import FolderError, KdnaError
from kdna_convert.core.tensorfile import save_tensors
from kdna_convert.network.folder import load, verify
from kdna_convert.network.folder.record import FILES
from kdna_convert.network.folder.save import STANDALONE_LOADER
from kdna_convert.network.packed import INDEX_LIMIT

STATE_DICT = runpy.run_path(str(STANDALONE_LOADER))["state_dict"]


def copied(kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(TESTS / "folders" / kind, tmp_path / kind))


def refusal(folder: Path) -> KdnaError:
    with pytest.raises(KdnaError) as error:
        load(folder, model=net())
    return error.value


def with_json(folder: Path, name: str, change: Callable[[Any], object]) -> KdnaError:
    """What load says once a JSON file is changed and the sums agree again."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    reseal(folder)
    return refusal(folder)


@pytest.mark.parametrize("name", [*FILES, "config.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_a_regular_file_is_opened(tmp_path: Path, name: str, kind: str) -> None:
    folder = copied("shared", tmp_path)
    (folder / name).unlink()
    if kind == "fifo":
        os.mkfifo(folder / name)
    elif kind == "device":
        (folder / name).symlink_to("/dev/zero")
    else:
        (folder / name).mkdir()
    if name == "README.md":  # load does not read it
        assert not all(check.ok for check in verify(folder, model=net()))
    else:
        assert refusal(folder).code == ("KD602" if name == "config.json" else "KD603")


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    folder = copied("shared", tmp_path)
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    load(folder, model=net())


@pytest.mark.parametrize("name", ["config.json", "plan.json", "report.json", "recipe.yaml"])
@pytest.mark.parametrize("content", [b"[" * 10**6, b" " * (16 * 2**20 + 1), b'{"a":' * 10**5, b"\xff\xfe"])
def test_text_that_is_too_long_too_deep_or_not_utf8_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = copied("shared", tmp_path)
    (folder / name).write_bytes(content)
    reseal(folder)
    if name == "recipe.yaml" and content.isascii() and len(content) < 16 * 2**20:
        load(folder, model=net())  # the recipe is kept as it is and not parsed
    else:
        assert refusal(folder).code == "KD603"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, "a shape that no tensor can have"),
        ({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, "a shape that no tensor can have"),
        ({"a": {"dtype": "F32", "shape": [2**20], "data_offsets": [0, 2**22]}}, "lacks it"),
        ({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, "the dtype 'F31'"),
        (
            {str(name): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for name in range(70_000)},
            "70,000 tensors",
        ),
    ],
    ids=["elements", "axes", "more than the file", "dtype", "tensors"],
)
def test_a_header_that_no_net_has_is_refused(tmp_path: Path, header: dict[str, Any], reason: str) -> None:
    folder = copied("shared", tmp_path)
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    reseal(folder)
    error = refusal(folder)
    assert error.code == "KD603"
    assert reason in error.message


@pytest.mark.parametrize("length", [2**20, 2**63])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    folder = copied("shared", tmp_path)
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    reseal(folder)
    assert "its header has" in refusal(folder).message


def recoded(folder: Path, index: bytes) -> KdnaError:
    """What load says to a coded file with another index, whose digest and sums agree."""
    coded = safetensors.torch.load_file(folder / "model.safetensors")["kdna"].numpy().tobytes()
    packed = zlib.compress(index)
    end = 5 + int.from_bytes(coded[1:5], "little")
    whole = coded[:1] + len(packed).to_bytes(4, "little") + packed + coded[end:-8]
    blob = whole + blake2b(whole, digest_size=8).digest()
    save_tensors(folder / "model.safetensors", {"kdna": torch.frombuffer(bytearray(blob), dtype=torch.uint8)})
    reseal(folder)
    return refusal(folder)


def index_of(folder: Path) -> dict[str, Any]:
    coded = safetensors.torch.load_file(folder / "model.safetensors")["kdna"].numpy().tobytes()
    index: dict[str, Any] = json.loads(zlib.decompress(coded[5 : 5 + int.from_bytes(coded[1:5], "little")]))
    return index


def test_an_index_that_deflates_a_thousandfold_is_refused(tmp_path: Path) -> None:
    assert recoded(copied("coded", tmp_path), b" " * (INDEX_LIMIT + 1)).code == "KD608"


@pytest.mark.parametrize("shape", [[2**40], [2**30], [2**20, 2**20]])
def test_a_stream_that_announces_more_numbers_than_the_layers_have_is_not_decoded(
    tmp_path: Path, shape: list[int]
) -> None:
    folder = copied("coded", tmp_path)
    index = index_of(folder)
    index["parts"][0][2][0][1] = shape
    assert recoded(folder, json.dumps(index).encode()).code in ("KD303", "KD603")


def test_a_normalization_of_more_channels_than_the_layers_is_not_decoded(tmp_path: Path) -> None:
    folder = copied("coded", tmp_path)
    index = index_of(folder)
    index["norms"][2][0][1] = 2**40
    assert recoded(folder, json.dumps(index).encode()).code == "KD303"


def test_a_code_outside_the_codebook_is_refused_on_load(tmp_path: Path) -> None:
    folder = copied("codebook", tmp_path)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith(".K"))
    for wrong in (-1, len(tensors["blocks.0.conv1.E"])):
        tensors[name][0] = wrong
        save_tensors(folder / "model.safetensors", tensors)
        reseal(folder)
        with pytest.raises(FolderError, match=rf"KD603: .*{name} has an index outside 0\.\.115"):
            load(folder, model=net())


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["families"][0]["options"].update(rank=10**9),
        lambda plan: plan["families"][0]["options"].update(rank=-1),
        lambda plan: plan["families"][0].update(members=[]),
        lambda plan: plan["families"][0]["members"].append("stem"),
        lambda plan: plan["families"].append(plan["families"][0]),
        lambda plan: plan["families"][0]["members"].append("nowhere"),
        lambda plan: plan["layers"].append(plan["layers"][0]),
        lambda plan: plan["layers"][1].update(shape=[]),
        lambda plan: plan["layers"][1].update(shape=[2**31, 2**31, 3, 3]),
        lambda plan: plan["layers"][1].update(shape=[0, 12, 3, 3]),
        lambda plan: plan["layers"][1].update(shape=[1] * 9),
        lambda plan: plan.update(seed=-1),
    ],
)
def test_a_plan_that_no_net_has_is_refused(tmp_path: Path, change: Callable[[Any], object]) -> None:
    assert with_json(copied("shared", tmp_path), "plan.json", change).code == "KD603"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda route: route["options"].update(width=10**6), "KD603"),
        (lambda route: route["options"].update(width="wide"), "KD503"),
        (lambda route: route["options"].update(other=1), "KD503"),
        (lambda route: route.update(layers=[]), "KD603"),
        (lambda route: route["layers"][0].update(name="nowhere"), "KD503"),
        (lambda route: route["layers"][0].update(shape=[10**6, 10**6, 1, 1]), "KD503"),
        (lambda route: route["layers"][0].update(groups=0), "KD603"),
        (lambda route: route.update(routing="dyconv", options={"kernels": 10**6}), "KD603"),
    ],
)
def test_a_routing_larger_than_the_net_is_refused(tmp_path: Path, change: Callable[[Any], object], code: str) -> None:
    folder = copied("routed", tmp_path)
    assert with_json(folder, "plan.json", lambda plan: change(plan["routes"][0])).code in (code, "KD303")


@pytest.mark.parametrize("size", [[], [3], [3, 10**5, 10**5], [3, -1, 4], [0, 8, 8]])
def test_an_input_that_no_image_becomes_is_refused(tmp_path: Path, size: list[int]) -> None:
    folder = copied("shared", tmp_path)
    assert (
        with_json(folder, "config.json", lambda config: config["kdna"]["data"].update(input_size=size)).code == "KD603"
    )


# --- the loader in the folder ---------------------------------------------------------------------------------------


def test_the_standalone_loader_refuses_what_fills_the_memory(tmp_path: Path) -> None:
    folder = copied("coded", tmp_path)
    assert STATE_DICT(folder).keys() == net().state_dict().keys()
    index = index_of(folder)
    recoded(folder, b" " * (INDEX_LIMIT + 1))
    with pytest.raises(ValueError, match="too long"):
        STATE_DICT(folder)
    index["parts"][0][2][0][1] = [2**20, 2**20]
    recoded(folder, json.dumps(index).encode())
    with pytest.raises(ValueError, match="announce 1,099,"):
        STATE_DICT(folder)


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), (116, IndexError)])
def test_the_standalone_loader_refuses_a_code_outside_the_codebook(
    tmp_path: Path, wrong: int, error: type[Exception]
) -> None:
    folder = copied("codebook", tmp_path)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    next(tensor for name, tensor in tensors.items() if name.endswith(".K"))[0] = wrong
    save_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(error):
        STATE_DICT(folder)


def test_the_standalone_loader_opens_regular_files_only(tmp_path: Path) -> None:
    folder = copied("shared", tmp_path)
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(ValueError, match="not a regular file"):
        STATE_DICT(folder)
