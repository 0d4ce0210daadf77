"""Laws of pictures: what is written is what is read, zero is grey, and pictures stay small."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kdna_convert.html.picture import SHOWN, SIDE, Kernel, evenly, pictures_of
from kdna_convert.html.pixels import png_uri

ZERO = 128


def opened(uri: str) -> Image.Image:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def levels(uri: str) -> Kernel:
    return np.asarray(opened(uri))


def drawn(*shape: int, seed: int = 0) -> Kernel:
    return np.random.default_rng(seed).normal(size=shape)


def test_pixels_are_read_back_as_they_were_written() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11), dtype=np.uint8)
    assert (levels(png_uri(pixels)) == pixels).all()


def test_a_palette_gives_each_value_its_color_and_leaves_0_transparent() -> None:
    palette = [(0, 0, 0), (10, 20, 30), (200, 100, 0)]
    shown = np.asarray(opened(png_uri(np.array([[0, 1, 2]], dtype=np.uint8), palette)).convert("RGBA"))
    assert shown[0, 0, 3] == 0
    assert shown[0, 1:].tolist() == [[10, 20, 30, 255], [200, 100, 0, 255]]


def test_zero_is_the_middle_grey_and_signs_are_as_far_from_it() -> None:
    (one,) = pictures_of(np.array([[0.0, 1.0, -1.0]]))
    assert levels(one.uri).tolist() == [[ZERO, 255, 1]]
    assert one.scale == 1


def test_pictures_made_together_have_one_scale() -> None:
    large, small = pictures_of(np.array([[1.0, 0.0]]), np.array([[0.5, 0.0]]))
    assert large.scale == small.scale
    assert levels(small.uri)[0, 0] == round(ZERO + 127 / 2)


def test_a_kernel_of_zeros_or_of_nothing_finite_is_grey_or_empty() -> None:
    assert (levels(pictures_of(np.zeros((4, 4, 1, 1)))[0].uri) == ZERO).all()
    assert (levels(pictures_of(np.full((4, 4), np.nan))[0].uri) == 0).all()


def test_one_outlier_does_not_leave_the_rest_grey() -> None:
    kernel = drawn(32, 32)
    kernel[0, 0] = 1e6
    assert np.std(levels(pictures_of(kernel)[0].uri).astype(float)) > 20


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((64, 32, 3, 3), "8 of 64 filters down, 8 of 32 channels across, 3×3 each"),
        ((2, 3, 5, 5), "2 filters down, 3 channels across, 5×5 each"),
        ((2048, 512, 1, 1), "32 of 2,048 filters down, 32 of 512 channels across"),
        ((1000, 512), "32 of 1,000 filters down, 32 of 512 channels across"),
        ((96, 1, 7, 7), "64 of 96 filters, 7×7 each"),
        ((5, 1, 3, 3), "5 filters, 3×3 each"),
        ((64, 32, 9), "32 of 64 filters down, 6 of 32 channels across, 9 each"),
        ((64, 32, 512), "32 of 64 filters down, 1 of 32 channels across, 512 each in part"),
        ((16, 16, 3, 3, 3), "8 of 16 filters down, 6 of 16 channels across, 3×3×3 each"),
        ((1, 1), "1 filter"),
    ],
)
def test_kernels_of_every_form_are_a_small_picture_that_says_what_it_shows(shape: tuple[int, ...], what: str) -> None:
    (one,) = pictures_of(drawn(*shape))
    assert one.what == what
    assert levels(one.uri).shape == (one.height, one.width)
    assert 0 < one.height <= SIDE
    assert 0 < one.width <= SIDE
    assert max(one.height, one.width) * one.zoom <= SHOWN
    assert len(one.uri) < 6000


def test_a_montage_holds_the_kernels_that_were_picked_with_a_line_between_them() -> None:
    kernel = np.sign(drawn(2, 3, 3, 3))
    shown = levels(pictures_of(kernel)[0].uri)
    assert shown.shape == (7, 11)
    assert (shown[3] == 0).all()
    assert (shown[:, 3] == 0).all()
    assert (np.where(shown[4:, 8:] == 255, 1, -1) == kernel[1, 2]).all()


def test_filters_of_one_channel_fill_rows_one_after_the_other() -> None:
    kernel = np.sign(drawn(20, 1, 3, 3))
    shown = levels(pictures_of(kernel)[0].uri)
    assert (np.where(shown[4:7, :3] == 255, 1, -1) == kernel[8, 0]).all()
    assert (shown[8:, 16:] == 0).all()


def test_slices_of_a_kernel_of_three_axes_are_side_by_side() -> None:
    kernel = np.sign(drawn(1, 2, 2, 3, 3))
    shown = levels(pictures_of(kernel)[0].uri)
    assert (np.where(shown[:, :6] == 255, 1, -1) == np.concatenate([*kernel[0, 0]], 1)).all()


def test_places_are_spread_evenly_over_the_whole() -> None:
    assert evenly(5, 8) == [0, 1, 2, 3, 4]
    places = evenly(1000, 8)
    assert (places[0], places[-1], len(places)) == (0, 999, 8)
    assert max(np.diff(places)) - min(np.diff(places)) <= 1
