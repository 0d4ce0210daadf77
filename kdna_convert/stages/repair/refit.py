"""Sequential refit: every layer fitted anew to the original's outputs on the inputs that the converted net gives it.

W = argmin E|W u - y|^2 with u from the converted prefix and y from the original: each layer makes up for the errors of
those before it, and at the end of a residual branch for those of the skip path (as in channel pruning, He et al. 2017,
arXiv 1707.06168, section 3.1.2). Shared tensors stay as they are: only each member's own adapter is solved for, the
codes of a bank that its kernels take chosen anew. A layer that was left dense is solved for as well, at no cost. The
mean of every output is set right in the normalisation behind it, or in the layer's bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.linalg import Target
from ...network.derive import Derived, derived_layers
from ...network.walk import LayerProblem, kernel_of, layer_problem, match_mean
from .nets import Nets, Tick
from .step import Step

# How strongly a kernel is held where it was, relative to the mean second moment of its inputs.
RIDGE = 1e-3
# Variances are matched by no more than this factor.
_MOST = 1.5


@dataclass(frozen=True)
class Refit(Step):
    """Options: `variance`, the power of the ratio of standard deviations by which each channel is scaled afterwards
    (least squares shrinks what it cannot explain: 0 leaves it so, 1 restores the original's variance); `dense`,
    whether layers that were not converted are fitted too.
    """

    name: ClassVar[str] = "refit"
    variance: Annotated[float, Field(ge=0, le=1)] = 0.25
    dense: bool = True

    def run(self, nets: Nets, begin: int, tick: Tick) -> dict[str, str]:
        derived = derived_layers(nets.converted)
        left_out = {name: code for name, code in nets.unreachable.items() if name in derived}
        for pair in nets.pairs(begin, tick):
            for layer in pair.block.layers:
                if layer.name not in derived and not self.dense:
                    continue
                code = nets.refusal(layer.name)
                if code is not None:
                    left_out |= {layer.name: code} if layer.name in derived else {}
                    continue
                problem = layer_problem(pair, layer)
                module = nets.converted.get_submodule(layer.name)
                self._fit(module, derived.get(layer.name), problem)
                match_mean(pair, layer, problem)
        return left_out

    def _fit(self, module: nn.Module, derived: Derived | None, problem: LayerProblem) -> None:
        kernel_on = kernel_of(module).cpu()
        own = len(problem.moment_nn) / (len(problem.moment_nn) + problem.count)
        ridge = (RIDGE + own) * problem.moment_nn.diagonal().mean()
        moment_nn = problem.moment_nn + ridge * torch.eye(len(problem.moment_nn), dtype=torch.float64)
        cross_on = problem.cross_on + ridge * kernel_on
        fitted_on = self._solve(module, derived, kernel_on, moment_nn, cross_on, choose=True)
        got_o = ((fitted_on @ problem.moment_nn) * fitted_on).sum(1).clamp_min(1e-30)
        ratio_o = (problem.variance_o / got_o).sqrt().clamp(1 / _MOST, _MOST) ** self.variance
        if self.variance:
            self._solve(module, derived, kernel_on, moment_nn, cross_on * ratio_o[:, None])

    def _solve(
        self,
        module: nn.Module,
        derived: Derived | None,
        kernel_on: Tensor,
        moment_nn: Tensor,
        cross_on: Tensor,
        choose: bool = False,
    ) -> Tensor:
        """The least-squares kernel, stored in the layer; indices that a scheme keeps are chosen anew if so asked."""
        if derived is not None:
            derived.refit(Target(derived.shape, kernel_on, cross_on, moment_nn, 1.0), choose=choose)
            return kernel_of(module).cpu()
        fitted_on: Tensor = torch.linalg.solve(moment_nn, cross_on.T).T
        with torch.no_grad():
            weight = cast("nn.Linear", module).weight
            weight.copy_(fitted_on.view(weight.shape))
        return fitted_on
