"""The adaptive entropy coder: how few bytes it takes, any integers, and streams that stay readable."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdna_convert.codecs import CODECS, entropy
from kdna_convert.codecs.ordering import ByBucket
from kdna_convert.codecs.quantization_steps import nearest_step, scale_integers, scale_values, step_of
from kdna_convert.core.errors import NumericsError


def test_entropy_refuses_a_step_that_is_far_too_fine() -> None:
    with pytest.raises(NumericsError, match="KD704"):
        CODECS["entropy"].encode([torch.tensor([1.0])], [nearest_step(1e-9)])


def test_coarser_steps_take_fewer_bytes() -> None:
    weight = torch.distributions.Laplace(0.0, 1.0).sample((64, 32, 3, 3))
    sizes = [len(CODECS["entropy"].encode([weight], [nearest_step(step)])) for step in (0.1, 1.0, 4.0, 20.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 64 * 32 * 9 / 100


def test_iid_integers_take_at_most_two_percent_more_than_their_entropy() -> None:
    drawn = np.random.default_rng(0).laplace(size=(96, 96, 3, 3)).round().astype(np.int32)
    share = np.unique(drawn, return_counts=True)[1] / drawn.size
    ideal = -(share * np.log2(share)).sum() * drawn.size / 8
    assert len(entropy.encode([drawn])) < 1.02 * ideal


def test_similar_rows_columns_and_kernels_save_bytes() -> None:
    draw = np.random.default_rng(0)
    plain = draw.laplace(size=(64, 64, 3, 3))
    for shape, share in {(64, 1, 1, 1): 0.95, (1, 64, 1, 1): 0.95, (64, 64, 1, 1): 0.985}.items():
        uneven = (plain * draw.lognormal(sigma=1.0, size=shape)).round().astype(np.int32)
        shuffled = draw.permutation(uneven.reshape(-1)).reshape(uneven.shape)
        assert len(entropy.encode([uneven])) < share * len(entropy.encode([shuffled])), shape


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), max_size=4), st.integers(0, 2**32 - 1), st.sampled_from([0.2, 3.0, 400.0, 1e5])
        ),
        max_size=5,
    )
)
def test_any_integers_come_back(drawn: list[tuple[list[int], int, float]]) -> None:
    arrays = [np.random.default_rng(seed).laplace(0, scale, shape).astype(np.int32) for shape, seed, scale in drawn]
    decoded = entropy.decode(entropy.encode(arrays), [array.shape for array in arrays])
    assert all(np.array_equal(before, after) for before, after in zip(arrays, decoded, strict=True))


def test_the_largest_integers_come_back() -> None:
    array = np.array([[entropy.LARGEST - 1, 1 - entropy.LARGEST, 0]], np.int32)
    assert np.array_equal(entropy.decode(entropy.encode([array]), [(1, 3)])[0], array)
    with pytest.raises(ValueError, match="too large"):
        entropy.encode([array + 1])


def test_a_stream_of_an_earlier_version_still_decodes() -> None:
    """Golden bytes: whoever changes the contexts, the histograms or the coder's library breaks every file there is."""
    array = np.round(4 * np.sin(np.arange(120) ** 2)).astype(np.int32).reshape(4, 5, 3, 2)
    golden = bytes.fromhex(GOLDEN)
    assert entropy.encode([array]) == golden
    assert np.array_equal(entropy.decode(golden, [array.shape])[0], array)


def test_a_stream_of_several_tensors_keeps_its_bytes() -> None:
    """Shapes that come twice, one after the other or not, and more numbers than one block sorts (ordering.py)."""
    shapes = [(40, 30, 3, 3), (64, 7), (40, 30, 3, 3), (9,), (64, 7), (120, 90, 3, 3)]
    wave = np.sin(np.arange(150_000) ** 2 % 1009)
    parts = np.split(wave, np.cumsum([np.prod(shape) for shape in shapes]))
    sizes = (1, 9, 3, 700, 2, 1.5)
    arrays = [
        np.round(size * part).astype(np.int32).reshape(shape)
        for size, part, shape in zip(sizes, parts, shapes, strict=False)
    ]
    stream = entropy.encode(arrays)
    assert hashlib.sha256(stream).hexdigest() == "69493f66f36776f51c85c7ea37d50942ee2ba5e944de34bdf8c02ed0b9d771c8"
    assert all(map(np.array_equal, arrays, entropy.decode(stream, shapes)))


@pytest.mark.parametrize("size", [0, 1, 1000, 150_000])
def test_blocks_sort_as_the_whole_would(size: int) -> None:
    draw = np.random.default_rng(0)
    bucket, values = draw.integers(0, 40, size).astype(np.uint8), draw.integers(-9, 9, size).astype(np.int32)
    order = ByBucket(bucket)
    assert np.array_equal(order.lengths, np.bincount(bucket, minlength=len(order.lengths)))
    assert np.array_equal(order.sorted(values), values[np.argsort(bucket, kind="stable")])
    assert np.array_equal(order.restored(order.sorted(values)), values)


GOLDEN = (
    "bf54568bc2b8aa46e260a36e6e363b4fd43034b161aced9c7731e2f24ddcccedfcff3aa22f40e48128712ccf418e42cf"
    "347e6cd2d7aa4c5a07000000"
)


def test_steps_lie_on_their_grid() -> None:
    for wished in (1e-30, 3e-4, 1.0, 7.0, 1e20):
        assert step_of(nearest_step(wished)) == pytest.approx(wished, rel=0.006)


def test_scales_keep_sign_and_size() -> None:
    scale = torch.tensor([1.0, -0.3, 7.0, 0.0, -1e-3, 1e3])
    decoded = scale_values(*scale_integers(scale))
    assert torch.allclose(decoded, scale, rtol=0.022, atol=1e-4)
    assert scale_values(*scale_integers(decoded)).equal(decoded)
