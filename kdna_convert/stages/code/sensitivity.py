"""What an error in each layer of a net costs the loss: the weights by which quantization steps are chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from ...core.linalg import Moment, damp
from ...core.specs import product
from ...network.derive import Derived
from ..analyze.moments import Moments
from .factors import Member
from .feedback_rounding import Feedback
from .row_costs import RowCosts, row_costs


@dataclass(frozen=True)
class Sensitivity:
    """The moments of layers and the cost of errors in their outputs.

    Attributes:
        moments: Moments of the layers' inputs.
        costs: Cost of errors by row, before rows are scaled.
        mean: The geometric mean cost, for layers whose cost is unknown.
        balanced: As `costs`, for the scaled rows (row_costs.py).
        spreads: The step unit of each last factor, from its inputs' moment (feedback_rounding.py).
        banks: The step unit of each bank (factors.py).

    The last three are filled in while a net is coded.
    """

    moments: Moments
    costs: dict[str, RowCosts]
    mean: float
    balanced: dict[str, RowCosts] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    banks: dict[str, float] = field(default_factory=dict)

    def knows(self, name: str) -> bool:
        """Whether the layer has a moment. One that the memory limit excludes has none."""
        return name in self.moments

    @property
    def typical_spread(self) -> float:
        """The geometric mean of the spreads, for a layer without a moment."""
        logs = [math.log(spread) for spread in self.spreads.values() if spread > 0]
        return math.exp(sum(logs) / len(logs)) if logs else 1.0

    def cost(self, name: str) -> float:
        """The loss per squared error of 1 in an output of the layer."""
        return float(self.costs[name].cost_o.mean()) if name in self.costs else self.mean

    def row_feedback(self, name: str) -> Feedback | None:
        """How the rows of the layer compensate one another's errors."""
        return self.balanced[name].feedback if name in self.balanced else None

    def member(self, name: str, derived: Derived) -> Member:
        """A derived layer with its moment and its cost."""
        return Member(name, derived, self.moment(name, product(derived.shape[1:])), self.cost(name))

    def moment(self, name: str, patch: int) -> Moment:
        """The damped second moment of the layer's inputs; the identity if it is unknown."""
        if name not in self.moments:
            return torch.eye(patch, dtype=torch.float64)
        return damp(self.moments[name].second)


def sensitivity_of(moments: Moments) -> Sensitivity:
    """The sensitivity of a net, from moments with gradients."""
    costs = {name: costs for name, layer in moments.items() if (costs := row_costs(layer.gradient)) is not None}
    logs = [math.log(float(own.cost_o.mean())) for own in costs.values()]
    return Sensitivity(moments, costs, math.exp(sum(logs) / len(logs)) if logs else 1.0)
