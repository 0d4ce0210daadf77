"""What a conversion is expected to take, from the surveyed layers, the recipe and the number of images.

Each stage is counted in floating-point operations of convolutions and of matrix products. The machine's speed turns
these into ideal seconds, and a measured factor for each stage into expected ones: it holds what is not counted, such as
element-wise operations and float64. benchmarks/cost_model.py compares the factors with what conversions took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.linalg import FULL_METRIC_PATCH
from ...core.measurements import ExpectedCost
from ...core.specs import Layer
from ...inputs.recipe import Recipe
from ...network.walk import drawn_positions
from ..analyze.collect import BACKWARD, PATCHES
from ..convert.fit import SWEEPS
from ..plan.database import QUICK
from ..repair.reconstruct import WORK, Reconstruct

# Seconds per ideal second of each stage.
FACTORS = {"calibrate": 1.5, "predict": 1.5, "fit": 1.0, "repair": 2.3, "code": 4.0}
# Seconds to load torch, the net and the images; of an iteration of a layer's fit, and of the coding of a layer, both
# beside what is counted.
START, ITERATION, CODED = 6.0, 1e-3, 0.15
# Bytes of the process with its libraries; and per byte of the outputs of a batch, of the moments, and of the weights.
BASE, PER_OUTPUT, PER_MOMENT, PER_WEIGHT = 950e6, 6.8, 2.0, 6.0
# The most bytes of outputs that count: larger batches run in parts.
OUTPUTS = 2**29
# Sizes at which a family's error is predicted, about.
PROBES = 6


@dataclass(frozen=True)
class Speed:
    """Floating-point operations per second of large convolutions and matrix products in float32, on `cores` cores."""

    convolutions: float
    products: float
    cores: int


@dataclass(frozen=True)
class Work:
    """Floating-point operations in convolutions and in matrix products, and seconds that are no such operations."""

    convolutions: float = 0.0
    products: float = 0.0
    besides: float = 0.0

    def ideal(self, speed: Speed) -> float:
        """The seconds of its operations at this speed."""
        return self.convolutions / speed.convolutions + self.products / speed.products


def expected_cost(layers: Sequence[Layer], recipe: Recipe, images: int, speed: Speed) -> ExpectedCost:
    """The expected cost of a conversion.

    Args:
        layers: The surveyed layers of the net, with the recipe's reasons: those without one are converted.
        recipe: The recipe.
        images: The images that calibrate; 0 without images.
        speed: The machine's.
    """
    stages = {"load": START}
    for name, done in work(layers, recipe, images).items():
        stages[name] = FACTORS[name] * done.ideal(speed) + done.besides
    return ExpectedCost(sum(stages.values()), _peak(layers, recipe), stages, speed.cores)


def work(layers: Sequence[Layer], recipe: Recipe, images: int) -> Mapping[str, Work]:
    """The operations of each stage that the recipe has."""
    active = [layer for layer in layers if layer.reason is None]
    once = 2.0 * images * sum(layer.macs for layer in layers)  # a forward pass of all images
    step = sum(_search(layer) for layer in active)
    done: dict[str, Work] = {}
    if active:
        quick, sweeps = (1 + len(recipe.alternatives)) * PROBES * QUICK, recipe.fit.sweeps or SWEEPS
        backward = 2 * once * min(1, BACKWARD / max(1, images))
        drawn = sum(2.0 * layer.patch**2 * layer.groups * _patches(layer, images) for layer in active)
        done["calibrate"] = Work(once + backward, drawn)
        done["predict"] = Work(0, quick * step, ITERATION * quick * len(active))
        done["fit"] = Work(0, sweeps * step, ITERATION * sweeps * len(active))
    if active and images and recipe.repair:
        walks = sum(2 * once + _trained(layers, one.name) for one in recipe.repair)
        done["repair"] = Work(walks, len(recipe.repair) * _moments(layers, images))
    if recipe.codec == "entropy":
        rounded = sum(2.0 * layer.params * layer.patch for layer in layers)
        done["code"] = Work(6 * once, _moments(layers, images) + rounded, CODED * len(layers))
    return done


def _patches(layer: Layer, images: int) -> int:
    """The patches that calibration draws."""
    return min(images * layer.out_positions, PATCHES * layer.patch)


def _moments(layers: Sequence[Layer], images: int) -> float:
    """The second moments that a walk over so many images collects."""
    drawn = (images * min(layer.out_positions, drawn_positions(layer.patch, images)) for layer in layers)
    return sum(2.0 * layer.patch**2 * layer.groups * count for layer, count in zip(layers, drawn, strict=True))


def _search(layer: Layer) -> float:
    """An iteration of the fit of a layer: its kernel times its metric, and the gradients."""
    metric = layer.patch if layer.patch <= FULL_METRIC_PATCH else layer.in_channels + layer.taps
    return 8.0 * layer.params * metric


def _trained(layers: Sequence[Layer], step: str) -> float:
    """The training of a repair step: forward and backward passes of every block, each within the step's bound."""
    if step != Reconstruct.name:
        return 0.0
    return 6.0 * sum(min(WORK / 2, Reconstruct.steps * Reconstruct.batch * layer.macs) for layer in layers)


def _peak(layers: Sequence[Layer], recipe: Recipe) -> float:
    """Bytes at the peak: the process, the outputs of a batch, the moments and the weights, each a few times."""
    outputs = 4 * recipe.calibration.batch * sum(layer.out_channels * layer.out_positions for layer in layers)
    moments = 4 * sum(layer.patch**2 for layer in layers if layer.reason is None)
    weights = 4 * sum(layer.params for layer in layers)
    used = PER_OUTPUT * min(OUTPUTS, outputs) + PER_MOMENT * min(recipe.calibration.memory, moments)
    return BASE + used + PER_WEIGHT * weights
