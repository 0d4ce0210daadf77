"""Laws of the part on similar layers: every value can be read from the page, and large nets stay small."""

from __future__ import annotations

import base64
import io
import re
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kdna_convert.core.measurements import Analysis, Group, Matrix
from kdna_convert.core.specs import Layer
from kdna_convert.html import ANALYSIS_PARTS, Material, page_of
from kdna_convert.html.parts.alike import SHADES, palette, shade, similarity
from kdna_convert.html.picture import pictures_of

MEASURES = ("explained", "angles", "cka", "cosine")


def matrix(count: int, undefined: float = 0.0, seed: int = 0) -> Matrix:
    noise = np.random.default_rng(seed)
    features = noise.normal(size=(count, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    values = np.abs(features @ features.T).clip(0, 1)
    values[noise.random((count, count)) < undefined] = np.nan
    return tuple(tuple(None if np.isnan(value) else round(float(value), 6) for value in row) for row in values)


def analysis(*names: str, groups: int = 1, undefined: float = 0.0) -> Analysis:
    layers = tuple(Layer(name, "Conv2d", (8, 8, 3, 3)) for name in names)
    parts = [names[number::groups] for number in range(groups)]
    made = tuple(
        Group(
            key=str(number),
            members=part,
            similarities={name: matrix(len(part), undefined, seed) for seed, name in enumerate(MEASURES)},
            clusters=tuple(place % 2 for place in range(len(part))),
            silhouette=0.25,
            params=72 * len(part),
        )
        for number, part in enumerate(parts)
    )
    return Analysis(layers, made, (), "explained", 72 * len(names))


def body(material: Material) -> str:
    part = similarity(material)
    assert part is not None
    return str(part.body)


def pixels(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_pixels_of_a_map_are_the_values_in_steps() -> None:
    values, order = matrix(12, undefined=0.2), [*range(11, -1, -1)]
    read = pixels(shade("explained", values, order).uri)
    for row, at in enumerate(order):
        for column, to in enumerate(order):
            value = values[at][to]
            assert read[row, column] == (0 if value is None else 1 + round(SHADES * value))


def test_a_map_has_no_value_without_a_color_of_its_own_up_to_its_ends() -> None:
    made = shade("explained", matrix(12), [*range(12)])
    assert 0 <= float(made.low) < float(made.high) <= 1
    colors = palette(0.2, 0.5)
    first, last = (1 + round(SHADES * end) for end in (0.2, 0.5))
    assert len({*colors[first : last + 1]}) == last + 1 - first
    assert len({*colors[1 : first + 1]}) == len({*colors[last:]}) == 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_similarities_are_a_map_too(value: float) -> None:
    made = shade("explained", ((1.0, value), (value, 1.0)), [0, 1])
    assert float(made.high) - float(made.low) >= 0.09
    assert made.low <= f"{value:.1f}" <= made.high


def test_a_map_of_undefined_values_is_empty() -> None:
    assert not pixels(shade("cka", ((None, None), (None, None)), [0, 1]).uri).any()
    assert "undefined" in body(Material("", analysis=analysis("a", "b", undefined=1.0)))


def test_the_largest_group_is_open_and_the_others_can_be_opened() -> None:
    shown = body(Material("", analysis=analysis(*"abcdefghi", groups=3)))
    assert shown.count('class="map"') == 3
    before, _, _ = shown.partition('class="map"')
    assert "<details" not in before
    assert shown.count("<summary>3 layers with kernels") == 2


def test_every_measure_can_be_chosen_and_the_metric_of_the_tree_is_first() -> None:
    shown = body(Material("", analysis=analysis(*"abcd")))
    assert re.findall(r'name="measure" value="(\w+)"', shown) == [*MEASURES]
    assert re.findall(r'<img data-measure="(\w+)"[^>]*alt="">', shown) == ["explained"]


def test_names_are_shown_and_are_never_markup() -> None:
    name = "<b onclick=x>\x1b[31m\"'&"
    shown = page_of(Material("", analysis=analysis(name, "other")), ANALYSIS_PARTS).html
    assert "<b onclick" not in shown
    assert "\x1b" not in shown
    assert "\\x1b" in shown


def test_names_beside_a_map_leave_out_what_they_share() -> None:
    shown = body(Material("", analysis=analysis("net.stage1.conv", "net.stage2.conv", "net.stage2.other")))
    assert '<span title="net.stage1.conv">stage1.conv</span>' in shown


def test_a_layer_with_a_picture_has_it_in_the_page_once() -> None:
    (picture,) = pictures_of(np.ones((8, 8, 3, 3)))
    shown = body(Material("", analysis=analysis(*"abc"), kernels={"a": picture}))
    assert shown.count(picture.uri) == 1


def test_without_an_analysis_the_part_says_why_or_is_not_there() -> None:
    assert similarity(Material("")) is None
    part = similarity(Material("", compared="The layers were not compared: no weights."))
    assert part is not None
    assert (part.sentence, part.body) == ("The layers were not compared: no weights.", "")


def test_a_net_of_layers_that_cannot_share_is_a_sentence() -> None:
    part = similarity(Material("", analysis=Analysis((), (), (), "explained", 0)))
    assert part is not None
    assert "No two layers" in part.sentence
    assert not part.body


def test_500_layers_are_a_page_of_less_than_3_megabytes_in_seconds() -> None:
    names = [f"stage{place // 50}.block{place}.conv" for place in range(500)]
    made = analysis(*names)
    start = time.perf_counter()
    page = page_of(Material("", analysis=made), ANALYSIS_PARTS)
    assert time.perf_counter() - start < 20  # 1 s alone
    assert len(page.html.encode()) < 3_000_000


def test_the_same_analysis_makes_the_same_page() -> None:
    first, second = (page_of(Material("", analysis=analysis(*"abcdef")), ANALYSIS_PARTS).html for _ in range(2))
    assert first == second
