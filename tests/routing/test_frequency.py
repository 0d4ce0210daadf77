"""The frequency routing: its bands, its published formulas and counts, and its limits."""

import warnings
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest
import torch
from support.routings import described, learned, routed
from torch import Tensor, nn

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.routing import ROUTINGS, routers
from kdna_convert.routing.frequency import Frequency, reach
from kdna_convert.routing.input_bands import InputBands, lowpass
from kdna_convert.routing.kernel_bands import bands_of, frequency_count, split_bands

SHAPES = [(6, 5, 3, 3), (4, 3, 5, 5), (7, 9, 1, 1), (8, 1, 3, 3), (6, 4, 3), (3, 4, 2, 3, 3), (4, 6, 1, 3)]


def matrix_of(weight: Tensor) -> Tensor:
    """A kernel's (out taps, in taps) matrix, entry by entry."""
    outs, ins, *taps = weight.shape
    flat = weight.reshape(outs, ins, -1, taps[-1])
    rows = [torch.cat([flat[o, i, t] for i in range(ins)]) for o in range(outs) for t in range(flat.shape[2])]
    return torch.stack(rows)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_bands_are_disjoint_rise_in_frequency_and_sum_to_the_kernel(shape: tuple[int, ...], bands: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bins = bands_of(shape, bands)
    kernels = split_bands(weight, bins, bands)
    torch.testing.assert_close(kernels.sum(0), weight, atol=1e-12, rtol=0)
    matrix = matrix_of(weight)
    spectra = [torch.fft.rfft2(matrix_of(kernel)) for kernel in kernels]
    assert spectra[0].shape == bins.shape
    for band, spectrum in enumerate(spectra):
        torch.testing.assert_close(spectrum, torch.fft.rfft2(matrix) * (bins == band), atol=1e-10, rtol=0)
    rows, columns = matrix.shape
    radius = [
        [sqrt((min(r, rows - r) / rows) ** 2 + (c / columns) ** 2) for c in range(bins.shape[1])] for r in range(rows)
    ]
    inside = [torch.tensor(radius)[bins == band] for band in range(bands)]
    assert all(below.max() <= above.min() + 1e-6 for below, above in pairwise(inside))
    pairs = {frozenset({(r, c), (-r % rows, -c % columns)}): (r, c) for r in range(rows) for c in range(bins.shape[1])}
    counts = torch.tensor([bins[at] for at in pairs.values()]).bincount()
    assert len(pairs) == frequency_count(shape)
    assert counts.max() - counts.min() <= 1


def test_the_kernel_is_the_weighted_spectrum_and_every_gate_has_its_place() -> None:
    net, x = routed("conv2d", Frequency())
    layer = learned(net).eval()[0].one
    modulation = layer.gate(x, layer.weight)
    ins, outs, taps, mix = (
        factor.detach() for factor in (modulation.inputs, modulation.outputs, modulation.taps, modulation.mix)
    )
    assert [tuple(factor.shape) for factor in (ins, outs, taps, mix)] == [(3, 8), (3, 4), (3, 3, 3), (3, 4)]
    full = torch.fft.rfft2(matrix_of(layer.weight))
    bins = bands_of((4, 8, 3, 3), 4)
    for image in range(3):
        weighted = sum(mix[image, band] * (bins == band) for band in range(4)) * full
        matrix = torch.fft.irfft2(weighted, s=(12, 24))
        kernel = matrix.view(4, 3, 8, 3).transpose(1, 2) * taps[image]
        gated = x[image] * ins[image][:, None, None]
        y = torch.conv2d(gated[None], kernel, padding=1)[0] + layer.bias[:, None, None]
        torch.testing.assert_close(layer(x)[image], y * outs[image][:, None, None], atol=1e-5, rtol=1e-4)


def test_a_local_factor_sees_the_means_of_neighboring_channels() -> None:
    net, x = routed("conv2d", Frequency(local=True))
    layer = learned(net).eval()[0].one
    gate = layer.gate
    means = torch.nn.functional.pad(gate.local.norm(x.mean((2, 3))), (reach(8) // 2, reach(8) // 2))
    modulation = gate(x, layer.weight)
    gate.local, local = None, gate.local
    without = gate(x, layer.weight).kernel_of(layer.weight)
    for image, out, channel, tap in [(0, 0, 0, 0), (2, 3, 7, 8), (1, 2, 4, 5)]:
        neighbors = means[image, channel : channel + reach(8)]
        factor = 2 * torch.sigmoid(local.conv.weight[out * 9 + tap, 0] @ neighbors)
        at = (image, out, channel, tap // 3, tap % 3)
        torch.testing.assert_close(modulation.kernel[at], without[at] * factor, atol=1e-5, rtol=1e-4)
    assert [reach(channels) for channels in (1, 3, 16, 64, 256, 512, 2048)] == [1, 1, 3, 5, 5, 5, 7]


@pytest.mark.parametrize("size", [(8, 8), (7, 12), (33, 20), (1, 5)], ids=str)
def test_octaves_are_those_of_the_transform_and_the_input_is_kept_to_the_bit_at_first(size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bands = InputBands(5).double()
    assert torch.equal(bands(x), x)
    nn.init.normal_(bands.conv.weight, generator=torch.Generator().manual_seed(1))
    gates = 2 * torch.sigmoid(bands.conv(x))
    spectrum = torch.fft.fft2(x)
    frequency = torch.maximum(torch.fft.fftfreq(size[0]).abs()[:, None], torch.fft.fftfreq(size[1]).abs())
    expected, above = torch.zeros_like(x), x
    for number, octave in enumerate((2, 4, 8)):
        below = torch.fft.ifft2(spectrum * (frequency < 0.5 / octave)).real
        expected, above = expected + gates[:, number : number + 1] * (above - below), below
    torch.testing.assert_close(bands(x), expected + above, atol=1e-10, rtol=0)
    projection = lowpass(size[0], 2, x)
    torch.testing.assert_close(projection @ projection, projection, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("shape", "options", "count"),
    [
        ((64, 32, 3, 3), {}, 32 * 16 + 2 * 16 + 2 + 17 * (32 + 64 + 9 + 4)),
        ((64, 512, 1, 1), {"bands": 8}, 512 * 32 + 2 * 32 + 2 + 33 * (512 + 64 + 8)),
        ((64, 32, 3, 3), {"local": True}, 32 * 16 + 34 + 17 * (32 + 64 + 9 + 4) + 64 * 9 * 3 + 2 * 32),
        ((64, 32, 3, 3), {"input_bands": True}, 32 * 16 + 34 + 17 * (32 + 64 + 9 + 4) + 3 * (9 * 32 + 1)),
    ],
    ids=str,
)
def test_parameters_are_the_published_count(shape: tuple[int, ...], options: dict[str, Any], count: int) -> None:
    layer = Layer("a", "Conv2d", shape)
    (router,) = Frequency(**options).build([layer], [None], [0])
    assert sum(parameter.numel() for parameter in router.parameters()) == count


def test_multiply_adds_grow_by_trunk_mixing_and_each_switch() -> None:
    layer = Layer("a", "Conv2d", (64, 32, 3, 3), in_positions=256, out_positions=256)
    plain = 16 * (32 + 32 + 64 + 9 + 4) + 4 * layer.params
    assert Frequency().macs([layer]) == plain
    assert Frequency(local=True).macs([layer, layer]) == 2 * (plain + 3 * layer.params)
    assert Frequency(input_bands=True).macs([layer]) == plain + 3 * 256 * 32 * (16 + 16 + 9)


def test_a_small_kernel_has_no_more_bands_than_frequencies() -> None:
    layer = Layer("a", "Conv2d", (2, 2, 1, 1))
    (router,) = Frequency(bands=64).build([layer], [None], [0])
    assert router.sizes == (2, 2, 0, 4)
    assert router.bins.flatten().tolist() == [0, 1, 2, 3]


def test_the_spectrum_is_taken_in_float32_whatever_the_precision() -> None:
    weight = torch.randn(16, 16, 3, 3)
    bins = bands_of((16, 16, 3, 3), 4)
    exact = split_bands(weight.bfloat16().float(), bins, 4)
    bands = split_bands(weight.bfloat16(), bins, 4)
    assert bands.dtype == torch.bfloat16
    torch.testing.assert_close(bands.float(), exact, atol=0.02, rtol=0.01)


def test_input_bands_stand_at_2d_kernels_of_more_than_one_tap() -> None:
    for kind, has in (("conv2d", True), ("strided", True), ("pointwise", False), ("conv1d", False), ("conv3d", False)):
        net, _ = routed(kind, Frequency(input_bands=True))
        assert all((router.octaves is not None) == has for router in routers(net).values())


def test_options_have_limits() -> None:
    for options in ({"bands": 0}, {"reduction": 0}):
        with pytest.raises(RecipeError, match=r"KD203: routing frequency: .* must be at least 1, got 0"):
            Frequency(**options)


def test_what_cannot_be_routed_has_its_code() -> None:
    grouped = described("a", nn.Conv2d(8, 4, 3, groups=4))
    assert Frequency().can_route(grouped) is None
    assert Frequency(local=True).can_route(grouped) == "KD135"
    assert Frequency().can_route(Layer("a", "Linear", (4, 8))) == "KD131"
    assert Frequency().can_route(Layer("a", "ConvTranspose2d", (4, 8, 3, 3), reason="KD104")) == "KD113"


def test_nothing_warns_at_even_kernels() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = Layer("a", "Conv2d", (4, 4, 2, 4))
        (router,) = ROUTINGS["frequency"](local=True, input_bands=True).build([layer], [None], [0])
        assert router(torch.randn(2, 4, 8, 8), torch.randn(4, 4, 2, 4)).kernel.shape == (2, 4, 4, 2, 4)
