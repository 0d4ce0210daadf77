"""Sequential refit: fit every layer again, on the inputs that it has in the converted net.

W = argmin E|W u - y|^2 with u from the converted prefix and y from the original. Each layer compensates the errors of
those before it, and at the end of a residual branch those of the skip path (as in channel pruning, He et al. 2017,
arXiv 1707.06168, section 3.1.2). Shared tensors do not change: only the adapter of each member is solved for, and the
indices of its codes are chosen again. Dense layers are solved for too, at no cost. A layer whose input is constant,
zero for example, keeps its kernel: nothing determines another one. The mean of every output is matched
in the normalization behind the layer, or in its bias.
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
from .net_pair import BlockProgress, NetPair
from .step import Step

# How strongly a kernel is held where it was, relative to the mean second moment of its inputs.
RIDGE = 1e-3
# The largest factor by which a variance is matched, before the power.
_MOST = 1.5


@dataclass(frozen=True)
class Refit(Step):
    """Solve for every layer in turn.

    Attributes:
        variance: Each channel is then scaled by the ratio of the standard deviations to this power. Least squares
            shrinks what it cannot explain: 0 keeps that, 1 restores the variance of the original.
        dense: Also fit layers that are not converted.
    """

    name: ClassVar[str] = "refit"
    variance: Annotated[float, Field(ge=0, le=1)] = 0.25
    dense: bool = True

    def run(self, nets: NetPair, begin: int, progress: BlockProgress) -> dict[str, str]:
        derived = derived_layers(nets.converted)
        skipped = {name: code for name, code in nets.unreachable.items() if name in derived}
        for stop in nets.walk(begin, progress):
            name = stop.layer.name
            if name not in derived and not self.dense:
                continue
            code = nets.refusal(name)
            if code is not None:
                skipped |= {name: code} if name in derived else {}
                continue
            problem = layer_problem(stop)
            if problem.determined:
                self._fit(stop.module, derived.get(name), problem)
            else:
                skipped[name] = "KD128"
            match_mean(stop, problem)
        return skipped

    def _fit(self, module: nn.Module, derived: Derived | None, problem: LayerProblem) -> None:
        kernel_on = kernel_of(module).cpu()
        own = len(problem.moment_nn) / (len(problem.moment_nn) + problem.count)
        ridge = (RIDGE + own) * problem.moment_nn.diagonal().mean()
        moment_nn = problem.moment_nn.clone()
        moment_nn.diagonal().add_(ridge)
        cross_on = problem.cross_on + ridge * kernel_on
        fitted_on = self._solve(module, derived, kernel_on, moment_nn, cross_on, choose=True)
        fitted_variance_o = ((fitted_on @ problem.moment_nn) * fitted_on).sum(1).clamp_min(1e-30)
        ratio_o = (problem.variance_o / fitted_variance_o).sqrt().clamp(1 / _MOST, _MOST) ** self.variance
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
        """Store the least-squares kernel in the layer and return it; with `choose`, also choose its indices again."""
        if derived is not None:
            derived.refit(Target(derived.shape, kernel_on, cross_on, moment_nn, 1.0), choose=choose)
            return kernel_of(module).cpu()
        fitted_on: Tensor = torch.linalg.solve(moment_nn, cross_on.T).T
        with torch.no_grad():
            weight = cast("nn.Linear", module).weight
            weight.copy_(fitted_on.view(weight.shape))
        return fitted_on
