"""What a layer costs a device, in whole numbers."""

import pytest

from kdna_convert.core.specs import Layer
from kdna_convert.inputs.boards import CycleFigures, Figure
from kdna_convert.network.liveness import LiveStep
from kdna_convert.stages.boards.layer_costs import Link, chain_links, chain_peak, cycles_of, dense_link

FIGURES = CycleFigures(
    **{  # type: ignore[arg-type]
        kind: Figure(value=value, source="a test")
        for kind, value in {"convolution": 2, "depthwise": 5, "pointwise": 3, "linear": 7, "layer": 100}.items()
    }
)
CONV = Layer("conv", "Conv2d", (8, 4, 3, 3), stride=(2, 2), in_positions=64, out_positions=16)
KERNELS = [(2, 4, 1, 1), (2, 1, 3, 3), (8, 2, 1, 1)]


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        (Link((8, 4, 3, 3), 4, 1), "convolution"),
        (Link((8, 4, 1, 1), 4, 1), "pointwise"),
        (Link((4, 1, 3, 3), 4, 1), "depthwise"),
        (Link((4, 1, 3, 3), 1, 1), "convolution"),
        (Link((4, 2, 5), 4, 1), "convolution"),
        (Link((4, 2, 1), 2, 1), "pointwise"),
        (Link((4, 2), 2, 1), "linear"),
    ],
)
def test_the_kind_of_a_layer_follows_from_its_kernel(link: Link, kind: str) -> None:
    assert link.kind == kind


def test_cycles_are_multiply_adds_by_kind_and_those_of_the_layer() -> None:
    assert cycles_of([dense_link(CONV)], FIGURES) == 2 * 8 * 4 * 9 * 16 + 100
    chain = chain_links(KERNELS, CONV)
    assert [link.macs for link in chain] == [8 * 64, 18 * 16, 16 * 16]
    assert cycles_of(chain, FIGURES) == 3 * 8 * 64 + 5 * 18 * 16 + 3 * 16 * 16 + 300
    assert cycles_of(chain, FIGURES, calls=2) == cycles_of(chain, FIGURES) + 300


def test_a_transposed_convolution_multiplies_at_its_input_positions() -> None:
    up = Layer("up", "ConvTranspose2d", (4, 8, 2, 2), stride=(2, 2), in_positions=16, out_positions=64)
    assert dense_link(up).macs == up.macs == 4 * 8 * 4 * 16


def test_what_a_chain_passes_on_counts_for_its_memory() -> None:
    chain = chain_links(KERNELS, CONV)
    alone = LiveStep("conv", True, takes=256, gives=128, beside=0, keeps=0)
    assert chain_peak(chain, alone) == 256 + 2 * 64  # then 128 + 32, and 32 + 128
    beside = LiveStep("conv", True, takes=256, gives=128, beside=1000, keeps=256)
    assert chain_peak(chain, beside) == 1000 + 256 + max(128, 128 + 32, 32 + 128)


def test_a_chain_of_one_link_is_the_layer() -> None:
    step = LiveStep("conv", True, takes=256, gives=128, beside=7, keeps=256)
    assert chain_peak([dense_link(CONV)], step) == step.alive
