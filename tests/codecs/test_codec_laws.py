"""The laws that every codec obeys: decoded numbers are within the bound, or the data is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kdna_convert.codecs import CODECS
from kdna_convert.codecs.quantization_steps import nearest_step
from kdna_convert.core.errors import FolderError, NumericsError

SHAPES = [(8, 6, 3, 3), (5, 7), (1, 1, 1, 1), (3, 0, 2), (), (9,), (4, 1, 5), (0,)]


EACH_CODEC = pytest.mark.parametrize("name", CODECS)


def tensors(scale: float = 1.0) -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=noise) * scale for shape in SHAPES]


def steps(given: list[Tensor], share: float = 0.1) -> list[int]:
    return [nearest_step(share * float(t.abs().max()) if t.numel() and t.any() else 1.0) for t in given]


SCALES = [1e-30, 1.0, 6e4 / 4, 1e30]


HELD = [(name, scale) for name in CODECS for scale in SCALES if (name, scale) != ("fp16", 1e30)]


@pytest.mark.parametrize(("name", "scale"), HELD)
def test_every_number_comes_back_within_the_codecs_bound(name: str, scale: float) -> None:
    codec, sent = CODECS[name], tensors(scale)
    numbers = steps(sent)
    decoded = codec.decode(codec.encode(sent, numbers), SHAPES, numbers)
    for before, after, number in zip(sent, decoded, numbers, strict=True):
        assert after.shape == before.shape
        assert after.dtype == torch.float32
        assert ((after - before).abs() <= codec.bound(before, number)).all()


@pytest.mark.parametrize("name", ["fp16", "bf16", "entropy"])
def test_decoded_tensors_code_to_the_same_bytes(name: str) -> None:
    codec, sent = CODECS[name], tensors()
    numbers = steps(sent)
    once = codec.encode(sent, numbers)
    assert codec.encode(codec.decode(once, SHAPES, numbers), numbers) == once


@EACH_CODEC
def test_integers_times_their_steps_are_what_is_decoded(name: str) -> None:
    codec, sent = CODECS[name], tensors()
    numbers = steps(sent)
    data = codec.encode(sent, numbers)
    parts = codec.quantized(data, SHAPES, numbers)
    assert (parts is None) == (name in ("fp16", "bf16"))
    for part, decoded in zip(parts or (), codec.decode(data, SHAPES, numbers), strict=parts is not None):
        assert part.integers.shape == decoded.shape
        assert not part.integers.is_floating_point()
        torch.testing.assert_close(part.integers.float() * part.step, decoded, atol=0, rtol=2e-7)


@pytest.mark.parametrize(("name", "bits"), [("fp16", 16), ("bf16", 16), ("int8", 8), ("int4", 4)])
def test_the_bytes_are_counted_exactly(name: str, bits: int) -> None:
    channels = sum(shape[0] if len(shape) > 1 else 1 for shape in SHAPES) if bits < 16 else 0
    numbers = sum((int(np.prod(shape)) * bits + 7) // 8 for shape in SHAPES)
    assert len(CODECS[name].encode(tensors(), [0] * len(SHAPES))) == numbers + 2 * channels


@EACH_CODEC
def test_no_tensors_take_no_bytes(name: str) -> None:
    assert CODECS[name].encode([], []) == b""
    assert CODECS[name].decode(b"", [], []) == []


@EACH_CODEC
def test_zeros_come_back_as_zeros(name: str) -> None:
    codec = CODECS[name]
    (decoded,) = codec.decode(codec.encode([torch.zeros(4, 3)], [0]), [(4, 3)], [0])
    assert not decoded.any()


@EACH_CODEC
def test_a_stream_of_another_length_is_refused(name: str) -> None:
    codec, sent = CODECS[name], tensors()
    whole = codec.encode(sent, steps(sent))
    for cut in (whole[:-1], whole[:-4], whole[4:], whole + b"\1\0\0\0"):
        with pytest.raises(FolderError, match="KD608"):
            codec.decode(cut, SHAPES, steps(sent))


def test_fp16_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(NumericsError, match=r"KD704.*bf16"):
        CODECS["fp16"].encode([torch.tensor([7e4])], [0])


def test_int4_reaches_each_channels_own_extreme() -> None:
    weight = torch.tensor([[1.0, -0.5], [1000.0, 1.0]])
    (decoded,) = CODECS["int4"].decode(CODECS["int4"].encode([weight], [0]), [(2, 2)], [0])
    assert torch.allclose(decoded.abs().amax(1), weight.abs().amax(1), rtol=0.01)
