"""K kernels for one layer, written around the layer's own: W_1 ... W_K = W + d_k, with d_1 + ... + d_K = 0.

    sum_k m_k W_k = (sum_k m_k) W + sum_{k<K} (m_k - m_K) d_k

The last d is minus the sum of the others, so K - 1 of them are stored, and with W they are K kernels' worth. Where all
m are equal the kernel is W to the last bit, whatever the d. They start at a hundredth of W's norm, for at zero neither
they nor the attention would ever move. The sum takes K terms, of which W is one: no expert is worked out.

Experts belong to one layer (`own`, drawn at random), or to all layers of one shape (`shared`): K experts then serve
L >= K layers, each of which keeps its own W and its own attention. Shared ones start at the top K - 1 directions in
which the layers' own kernels differ from their mean (Savarese and Maire's templates, with routing): K layers have no
more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import RecipeError
from ..core.specs import Layer, Shape

Owner = Literal["own", "shared"]
SIZE = 0.01  # of the kernels' norm
TOO_FEW = "KD133"  # the code of layers too few to share K experts


class Experts(nn.Module):
    """`deltas` (K - 1, out, in / groups, *kernel size)."""

    def __init__(self, deltas: Tensor) -> None:
        super().__init__()
        self.deltas = nn.Parameter(deltas.float())

    def around(self, weight: Tensor) -> Tensor:
        """(K, *weight's shape): the terms that `weights` sums, the layer's own kernel first."""
        return torch.cat([weight[None], self.deltas.to(weight)])


def weights(total: Tensor, mix: Tensor) -> Tensor:
    """(batch, K): what the terms of Experts.around weigh under a mix (batch, K) of the experts that sums to `total`."""
    return torch.cat([total, mix[:, :-1] - mix[:, -1:]], 1)


def hold(router: Any, experts: Experts, owned: bool) -> None:
    """Give a router its `experts`: registered by their owner only (derive.py, Note [Borrowed tensors])."""
    if owned:
        router.experts = experts
    else:
        object.__setattr__(router, "experts", experts)


def create_experts(
    kernels: int, owner: Owner, layers: Sequence[Layer], starts: Sequence[Tensor | None], seeds: Sequence[int]
) -> list[tuple[Experts, bool]]:
    """Each layer's experts and whether they are its own, or the first's, which all share.

    `starts` are the layers' kernels. Where these cannot be used, shared experts are drawn at random too.
    """
    if owner == "own":
        each = zip(layers, starts, seeds, strict=True)
        return [(Experts(drawn(kernels - 1, layer.shape, like, seed)), True) for layer, like, seed in each]
    known = [one.detach().double().cpu() for one in starts if one is not None and one.isfinite().all()]
    if len(known) < kernels:
        shared = Experts(drawn(kernels - 1, layers[0].shape, starts[0], seeds[0]))
    else:
        shared = Experts(directions(kernels - 1, torch.stack(known)))
    return [(shared, place == 0) for place in range(len(layers))]


def drawn(count: int, shape: Shape, like: Tensor | None, seed: int) -> Tensor:
    """(count, *shape) random numbers of a hundredth of the size of those in `like`."""
    size = 0.0 if like is None else float(like.detach().double().square().mean().sqrt())
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return SIZE * (size or 1.0) * noise


def directions(count: int, kernels: Tensor) -> Tensor:
    """(count, *shape): orthogonal directions, of a hundredth of the kernels' mean norm, that the kernels (layers,
    *shape) differ most along; the largest number of each is positive."""
    rows = kernels.flatten(1)
    top = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:count]
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    scaled: Tensor = SIZE * rows.norm(dim=1).mean() * top
    return scaled.view(count, *kernels.shape[1:])


def expert_groups(kernels: int, owner: Owner, layers: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """Each layer alone, or those of equal shape and groups together; families of fewer than K layers are left out."""
    if owner == "own":
        return [(layer,) for layer in layers]
    alike: dict[tuple[Any, ...], list[Layer]] = {}
    for layer in layers:
        alike.setdefault((layer.shape, layer.groups), []).append(layer)
    return [tuple(family) for family in alike.values() if len(family) >= kernels]


def require_owner(name: str, owner: str) -> None:
    """Raises RecipeError KD203."""
    if owner not in ("own", "shared"):
        raise RecipeError("KD203", f"routing {name}: experts must be own or shared, got {owner!r}")
