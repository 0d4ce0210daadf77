"""K kernels (experts) for one layer, stored as differences from its own: W_k = W + d_k, with d_1 + ... + d_K = 0.

    sum_k m_k W_k = (sum_k m_k) W + sum_{k<K} (m_k - m_K) d_k

The last d is minus the sum of the others, so only K - 1 of them are stored. If all m are equal, the kernel is W to the
last bit for any d. The d start at a hundredth of the norm of W, because at zero neither they nor the
attention would have a gradient. The sum has K terms, one of which is W: no expert is computed by itself.

Experts belong to one layer (`own`, drawn at random), or to all layers of one shape (`shared`): K experts then serve
L >= K layers, each of which keeps its own W and its own attention. Shared ones start at the top K - 1 directions in
which the layers' kernels differ from their mean (templates as in Savarese and Maire, ICLR 2019, arXiv 1902.09701, with
routing). K layers do not have more such directions.
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
    """The stored differences: `deltas`, (K - 1, out, in / groups, *kernel size)."""

    def __init__(self, deltas: Tensor) -> None:
        super().__init__()
        self.deltas = nn.Parameter(deltas.float())

    def terms(self, weight: Tensor) -> Tensor:
        """The K terms that `term_weights` weighs, (K, *shape of weight): the layer's own kernel, then the deltas."""
        return torch.cat([weight[None], self.deltas.to(weight)])


def term_weights(total: Tensor, mix: Tensor) -> Tensor:
    """The weights of Experts.terms for a mix of the experts: (batch, K).

    Args:
        total: The sum of the mix, (batch, 1).
        mix: The weights of the experts, (batch, K).
    """
    return torch.cat([total, mix[:, :-1] - mix[:, -1:]], 1)


def attach_experts(router: Any, experts: Experts, owned: bool) -> None:
    """Set `router.experts`. Only the owner registers them (network/derive.py, Note [Borrowed tensors])."""
    if owned:
        router.experts = experts
    else:
        object.__setattr__(router, "experts", experts)


def create_experts(
    kernels: int, owner: Owner, layers: Sequence[Layer], starts: Sequence[Tensor | None], seeds: Sequence[int]
) -> list[tuple[Experts, bool]]:
    """The experts of each layer, and whether the layer owns them. Shared ones are owned by the first layer.

    Args:
        kernels: K.
        owner: Whether each layer has its own experts or all share them.
        layers: The layers of a group.
        starts: The layers' kernels. If they cannot be used, shared experts are drawn at random too.
        seeds: A seed for each layer.
    """
    if owner == "own":
        each = zip(layers, starts, seeds, strict=True)
        return [(Experts(random_deltas(kernels - 1, layer.shape, like, seed)), True) for layer, like, seed in each]
    finite = [one.detach().double().cpu() for one in starts if one is not None and one.isfinite().all()]
    if len(finite) < kernels:
        shared = Experts(random_deltas(kernels - 1, layers[0].shape, starts[0], seeds[0]))
    else:
        shared = Experts(principal_deltas(kernels - 1, torch.stack(finite)))
    return [(shared, place == 0) for place in range(len(layers))]


def random_deltas(count: int, shape: Shape, like: Tensor | None, seed: int) -> Tensor:
    """Random numbers (count, *shape) of a hundredth of the root mean square of `like`."""
    size = 0.0 if like is None else float(like.detach().double().square().mean().sqrt())
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return SIZE * (size or 1.0) * noise


def principal_deltas(count: int, kernels: Tensor) -> Tensor:
    """The orthogonal directions (count, *shape) in which kernels (layers, *shape) differ most.

    Each has a hundredth of the kernels' mean norm, and its largest number is positive.
    """
    rows = kernels.flatten(1)
    top = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:count]
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    scaled: Tensor = SIZE * rows.norm(dim=1).mean() * top
    return scaled.view(count, *kernels.shape[1:])


def expert_groups(kernels: int, owner: Owner, layers: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """Each layer alone, or layers of equal shape and groups together; fewer than K such layers are left out."""
    if owner == "own":
        return [(layer,) for layer in layers]
    alike: dict[tuple[Any, ...], list[Layer]] = {}
    for layer in layers:
        alike.setdefault((layer.shape, layer.groups), []).append(layer)
    return [tuple(family) for family in alike.values() if len(family) >= kernels]


def require_owner(name: str, owner: str) -> None:
    """Raises RecipeError KD203 for an unknown owner."""
    if owner not in ("own", "shared"):
        raise RecipeError("KD203", f"routing {name}: experts must be own or shared, got {owner!r}")
