"""tensorly-torch's factorized convolutions: CP, and Tucker with unchanged spatial modes (Tucker-2).

Every layer keeps the same share of its parameters, the largest that fits the budget. The net runs factorized, which is
the library's default. CP takes 20 sweeps of alternating least squares.
"""

from __future__ import annotations

from typing import Any

import tltorch
from torch import Tensor, nn

from ..peers import PEERS
from ..tool_run import Candidate, ToolRun, count, plain_convs
from .largest_share import largest_share

OPTIONS: dict[str, dict[str, Any]] = {"cp": {}, "tucker": {"fixed_rank_modes": "spatial"}}
DECOMPOSITION: dict[str, dict[str, Any]] = {"cp": {"n_iter_max": 20}, "tucker": {}}


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """Factorize every layer of the tool_run at the same share of its parameters."""
    kind = PEERS[tool_run.peer].option
    convs = plain_convs(net, tool_run.layers)
    rest = count(net) - sum(conv.weight.numel() for conv in convs.values())

    def size(share: float) -> int:
        layers = (_factorized(conv, kind, share) for conv in convs.values())
        return rest + sum(count(layer.weight) for layer in layers)

    share = largest_share(size, tool_run.limit)
    for name, conv in convs.items():
        net.set_submodule(name, _factorized(conv, kind, share, seed=tool_run.recipe.seed))
    return Candidate(net)


def _factorized(conv: nn.Conv2d, kind: str, share: float, seed: int | None = None) -> Any:
    """The factorized layer at this share of its parameters. Without a seed only its shapes are right, for counting."""
    return tltorch.FactorizedConv.from_conv(
        conv,
        rank=share,
        factorization=kind,
        implementation="factorized",
        decompose_weights=seed is not None,
        decomposition_kwargs={**DECOMPOSITION[kind], "random_state": seed},
        **OPTIONS[kind],
    )
