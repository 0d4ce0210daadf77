"""A net's tensors as one coded stream: round trips inside and outside a folder, and refused streams."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import shutil
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.coded import coded, steps
from support.folder_fuzz import changed_bytes, changed_json
from support.small_nets import OPTIONS, images, small
from torch import nn

import kdna_convert
from kdna_convert.codecs import CODECS, indices
from kdna_convert.core.errors import FolderError, NumericsError
from kdna_convert.core.specs import product
from kdna_convert.network.folder import Conversion, open_folder, save, uncoded, verify
from kdna_convert.network.packed import announced, pack, unpack
from kdna_convert.network.stored import load_stored, stored_specs

LOADER = Path(kdna_convert.__file__).parent / "network" / "folder" / "standalone_loader.py"
EACH_CODEC = pytest.mark.parametrize("codec", CODECS)


Saved = Callable[[str, str | None], tuple[Conversion, Path]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """saved(codec, scheme): a coded conversion, routed where its scheme is cp, and its folder. Not to be changed."""

    @cache
    def saved(codec: str, scheme: str | None) -> tuple[Conversion, Path]:
        conversion = coded(codec, scheme, routing="se" if scheme == "cp" else None)
        return conversion, save(conversion, tmp_path_factory.mktemp("coded") / "out")

    return saved


@EACH_CODEC
@pytest.mark.parametrize("scheme", [None, *OPTIONS])
def test_a_coded_folder_loads_as_the_net_that_was_coded(
    codec: str, scheme: str | None, saved: Saved, tmp_path: Path
) -> None:
    conversion, folder = saved(codec, scheme)
    x = images()
    again = open_folder(folder, model=small(1))
    assert torch.equal(again.model(x), conversion.model(x))
    folded = kdna_convert.load(folder, folded=True, model=small(1))
    assert torch.allclose(folded(x), conversion.model(x), atol=1e-5)
    assert (
        save(again, tmp_path / "twice").joinpath("model.safetensors").read_bytes()
        == (folder / "model.safetensors").read_bytes()
    )


@EACH_CODEC
def test_a_coded_net_is_close_to_the_net_before(codec: str) -> None:
    before, after, x = small().requires_grad_(False), small().requires_grad_(False), images(20)
    load_stored(after, unpack(pack(before, codec, steps(before))))
    error = float((after(x) - before(x)).norm() / before(x).norm())
    assert error < {"fp16": 1e-2, "bf16": 0.05, "int8": 0.05, "int4": 0.6, "entropy": 0.15}[codec]


@EACH_CODEC
def test_the_file_has_the_size_that_was_counted(codec: str, saved: Saved) -> None:
    conversion, folder = saved(codec, "cp")
    assert (folder / "model.safetensors").stat().st_size == conversion.plan.planned.bytes


@EACH_CODEC
@pytest.mark.parametrize("scheme", [None, *OPTIONS])
def test_the_loader_in_the_folder_reads_every_codec_and_scheme(codec: str, scheme: str | None, saved: Saved) -> None:
    conversion, folder = saved(codec, scheme)
    state = loaded_module(folder / "loader.py").state_dict(folder)
    net = small(1)
    net.load_state_dict(state)
    assert torch.allclose(net(images()), conversion.model(images()), atol=1e-5)


@pytest.mark.parametrize("codes", [1, 2])
def test_the_loader_in_the_folder_reads_a_codebook_with_a_gain_per_filter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, codes: int
) -> None:
    monkeypatch.setitem(OPTIONS, "codebook", {"rank": 12, "gain": "filter", "codes": codes})
    conversion = coded("entropy", "codebook")
    state = loaded_module(save(conversion, tmp_path / "out") / "loader.py").state_dict(tmp_path / "out")
    net = small(1)
    net.load_state_dict(state)
    assert torch.allclose(net(images()), conversion.model(images()), atol=1e-5)


def loaded_module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("loader", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loader_in_the_folder_decodes_to_the_bit() -> None:
    net = small()
    blob = pack(net, "entropy", steps(net, 0.001))
    tensors, expected = loaded_module(LOADER).decode(blob), unpack(blob)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_the_loader_in_the_folder_names_a_missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    net = small()
    with pytest.raises(ImportError, match="pip install constriction"):
        loaded_module(LOADER).decode(pack(net, "entropy", steps(net)))


@EACH_CODEC
def test_a_truncated_or_changed_stream_is_refused(codec: str) -> None:
    net = small()
    blob = pack(net, codec, steps(net))
    for place in range(0, len(blob), 7):
        with pytest.raises(FolderError, match="KD608"):
            unpack(blob[:place])
        with pytest.raises(FolderError, match="KD608"):
            unpack(blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :])
        with pytest.raises(ValueError, match="cut short or altered"):
            standalone_decode(blob[:place])


standalone_decode = loaded_module(LOADER).decode


def test_a_newer_format_is_refused_as_such() -> None:

    blob = pack(small(), "fp16", {})
    newer = bytes([99]) + blob[1:-8]
    with pytest.raises(FolderError, match="KD605"):
        unpack(newer + hashlib.blake2b(newer, digest_size=8).digest())


@EACH_CODEC
def test_nan_is_refused_by_name(codec: str) -> None:
    net = small()
    with torch.no_grad():
        net.last.weight[0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"KD701: last\.weight"):
        pack(net, codec, steps(small()))


def test_weights_that_changed_after_coding_are_not_saved(tmp_path: Path) -> None:
    conversion = coded("int8")
    with torch.no_grad():
        conversion.model.head.weight += 1
    with pytest.raises(FolderError, match="KD609"):
        save(conversion, tmp_path / "out")
    plain = uncoded(conversion)
    size = save(plain, tmp_path / "out").joinpath("model.safetensors").stat().st_size
    assert size == plain.plan.planned.bytes


def test_a_damaged_coded_folder_is_refused(tmp_path: Path) -> None:
    folder = save(coded("entropy"), tmp_path / "out")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FolderError, match="KD603"):
        open_folder(folder, model=small())
    shutil.rmtree(folder)


def test_verify_passes_a_coded_folder_and_notices_a_wrong_size(tmp_path: Path) -> None:
    conversion = coded("entropy")
    checks = verify(save(conversion, tmp_path / "right"), model=small())
    assert all(check.ok for check in checks), checks
    wrong = replace(conversion, plan=replace(conversion.plan, planned=replace(conversion.plan.planned, bytes=1)))
    checks = verify(save(wrong, tmp_path / "wrong"), model=small())
    assert [check.name for check in checks if not check.ok] == ["totals"]


def test_merged_weights_of_a_coded_folder_fit_the_untouched_net(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from kdna_convert.stages.export import EXPORTS, write_export

    conversion = coded("entropy")
    plain = small(1)
    plain.load_state_dict(load_file(write_export(EXPORTS["merged"], conversion, tmp_path / "merged.safetensors").file))
    assert torch.allclose(plain(images()), conversion.model(images()), atol=1e-5)


def test_other_dtypes_keep_theirs() -> None:
    net = small().half()
    net.register_buffer("table", torch.arange(5))
    net.register_buffer("exact", torch.rand(3, dtype=torch.float64))
    tensors = unpack(pack(net, "int8", {}))
    assert {spec.name: spec.dtype for spec in stored_specs(net)} == {
        name: {torch.float16: "F16", torch.int64: "I64", torch.float64: "F64"}[t.dtype] for name, t in tensors.items()
    }
    assert torch.equal(tensors["exact"], net.exact)
    assert torch.equal(tensors["table"], net.table)


DRAW = torch.Generator().manual_seed(0)
WHOLE = {
    "even": torch.randint(0, 300, (40, 30), generator=DRAW).to(torch.int16),
    "skewed": (torch.randn(4000, generator=DRAW) * 3).to(torch.int32),
    "negative": torch.full((500,), -(2**63)) + torch.randint(0, 9, (500,), generator=DRAW),
    "huge": torch.tensor([2**63 - 1, -(2**63), 0] * 50),
    "bytes": torch.randint(0, 3, (700,), dtype=torch.uint8, generator=DRAW),
    "signed": torch.randint(-2, 2, (700,), generator=DRAW).to(torch.int8),
    "mask": torch.rand(900, generator=DRAW) > 0.9,
    "alike": torch.full((100,), 7),
    "one": torch.tensor(-5),
    "none": torch.empty(0, 3, dtype=torch.int32),
}


def with_integers(names: Iterable[str]) -> nn.Module:
    net = small()
    for name in names:
        net.register_buffer(name, WHOLE[name])
    return net


@pytest.mark.parametrize("names", [*([name] for name in WHOLE), list(WHOLE)], ids=lambda names: "+".join(names))
def test_integers_of_any_dtype_and_size_come_back_to_the_bit(names: list[str]) -> None:
    net = with_integers(names)
    blob = pack(net, "entropy", steps(small()))
    for tensors in (unpack(blob), standalone_decode(blob)):
        for name in names:
            assert tensors[name].dtype == WHOLE[name].dtype
            assert torch.equal(tensors[name], WHOLE[name])


def test_integers_are_coded_close_to_their_entropy() -> None:
    plain = len(pack(small(), "entropy", steps(small())))

    def room(name: str) -> float:
        return (len(pack(with_integers([name]), "entropy", steps(small()))) - plain) / WHOLE[name].numel() * 8

    assert room("even") < 10  # log2 of 300 is 8.2, of 16; and its line in the index
    assert room("skewed") < 4
    assert room("mask") < 1


def test_integers_without_a_gain_keep_the_first_format() -> None:
    assert pack(with_integers(["huge", "none"]), "entropy", steps(small()))[0] == 1
    assert pack(with_integers(["even"]), "int8", {})[0] == 1
    assert pack(with_integers(["even"]), "entropy", steps(small()))[0] == 2


def test_a_stream_of_integers_that_is_not_one_is_refused() -> None:
    whole = indices.encode(WHOLE["even"].flatten().long().numpy())
    assert whole is not None
    for cut in (b"", whole[:11], whole[:-1], whole[:-4], whole + bytes(4), whole[:8] + bytes(4) + whole[12:]):
        with pytest.raises(FolderError, match="KD608"):
            indices.decode(cut, 1200)


def test_numbers_beyond_fp16_are_kept() -> None:
    net = small()
    with torch.no_grad():
        net.head.bias[0] = 1e9
    assert float(unpack(pack(net, "int8", {}))["head.bias"][0]) == pytest.approx(1e9, rel=0.01)


def test_the_index_costs_less_than_a_twentieth_of_a_header() -> None:
    from kdna_convert.core.filesize import header

    net = nn.Sequential(*(module for _ in range(50) for module in (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))))
    blob = pack(net, "fp16", {})
    index = int.from_bytes(blob[1:5], "little")
    assert index < len(header(stored_specs(net), {})) / 20


@pytest.mark.parametrize("codec", CODECS)
def test_an_altered_index_or_stream_is_refused_or_decodes_to_what_it_announces(codec: str) -> None:
    net = with_integers(["even", "mask", "none"])
    blob = pack(net, codec, steps(small()) if codec == "entropy" else {})
    end = 5 + int.from_bytes(blob[1:5], "little")
    index, streams = zlib.decompress(blob[5:end]), blob[end:-8]
    codes = set()
    for seed in range(400):
        rng = random.Random(seed)
        in_index = seed % 5 > 0
        packed = zlib.compress(changed_json(json.loads(index), rng) if in_index else index, 1)
        whole = blob[:1] + len(packed).to_bytes(4, "little") + packed
        whole += streams if in_index else changed_bytes(streams, rng)
        altered = whole + hashlib.blake2b(whole, digest_size=8).digest()
        try:
            specs = announced(altered)
            if sum(product(spec.shape) for spec in specs) < 10**6:  # load compares larger ones with the net first
                found = {name: tuple(tensor.shape) for name, tensor in unpack(altered).items()}
                assert found == {spec.name: spec.shape for spec in specs}
        except FolderError as error:
            codes.add(error.code)
    assert codes == {"KD608"}
