"""Which layers could share, how alike they are, and which families that suggests."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

from torch import Tensor, nn

from ...core.errors import NumericsError, RecipeError
from ...core.linalg import JITTER, damp
from ...core.specs import Analysis, Group, Layer, Matrix, Progress
from .clustering import Linkage, cluster
from .moments import Moments
from .similarity import METRICS, Kernel
from .survey import target_kernel


def analyze(
    model: nn.Module,
    layers: Sequence[Layer],
    moments: Moments,
    *,
    group: Callable[[Layer], Hashable | None],
    metric: str = "explained",
    metrics: Sequence[str] = tuple(METRICS),
    linkage: Linkage = "average",
    threshold: float | None = None,
    families: int | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Similarities inside every group of layers with equal `group` key, and the families that `metric` finds there.

    Layers with a reason, or whose key is None, take no part. `metrics` are the measures worked out and shown, `metric`
    is always among them. Families end at `threshold` (the least similarity at which two join), at a number of
    `families`, or, with neither, at the best silhouette. A layer without moments is compared by its weights alone.
    Raises RecipeError KD203 for an unknown measure or contradicting ends, NumericsError KD701 naming a sick layer.
    """
    unknown = [name for name in (metric, *metrics) if name not in METRICS]
    if unknown:
        raise RecipeError("KD203", f"metric: must be one of {', '.join(METRICS)}, got {unknown[0]!r}")
    if threshold is not None and families is not None:
        raise RecipeError("KD203", "give a threshold or a number of families, not both")
    groups: list[Group] = []
    found = group_layers(layers, group)
    shown = dict.fromkeys((*metrics, metric))
    for done, (key, members) in enumerate(found.items()):
        kernels = [_kernel(model, layer, moments) for layer in members]
        matrices = {name: METRICS[name](kernels) for name in shown}
        labels, silhouette = cluster(
            matrices[metric].numpy(),
            linkage=linkage,
            threshold=threshold,
            families=None if families is None else min(families, len(members)),
        )
        groups.append(
            Group(
                key=str(key),
                members=tuple(layer.name for layer in members),
                similarities={name: _matrix(matrix) for name, matrix in matrices.items()},
                families=labels,
                silhouette=silhouette,
                params=sum(layer.params for layer in members),
            )
        )
        if progress is not None:
            progress(f"compare: {len(members)} layers", done + 1, len(found))
    together = {name for one in groups for name in one.members}
    alone = (layer.name for layer in layers if layer.reason is None and layer.name not in together)
    return Analysis(
        layers=tuple(layers),
        groups=tuple(sorted(groups, key=lambda one: -one.params)),
        alone=tuple(alone),
        metric=metric,
        params=sum(parameter.numel() for parameter in model.parameters()),
    )


def group_layers(
    layers: Sequence[Layer], group: Callable[[Layer], Hashable | None], at_least: int = 2
) -> dict[Hashable, tuple[Layer, ...]]:
    """The layers that could share, by key, groups of `at_least`. Layers with a reason or a key of None are left out."""
    found: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        key = group(layer) if layer.reason is None else None
        if key is not None:
            found.setdefault(key, []).append(layer)
    return {key: tuple(members) for key, members in found.items() if len(members) >= at_least}


def _kernel(model: nn.Module, layer: Layer, moments: Moments) -> Kernel:
    kernel = target_kernel(model.get_submodule(layer.name)).cpu()
    if not kernel.isfinite().all():
        raise NumericsError("KD701", f"{layer.name}: the weight holds NaN or infinity")
    seen = moments.get(layer.name)
    if seen is None:
        return Kernel(layer.shape, kernel.flatten(1))
    return Kernel(layer.shape, kernel.flatten(1), damp(seen.second, JITTER), seen.gram_ee)


def _matrix(values: Tensor) -> Matrix:
    return tuple(tuple(None if math.isnan(v) else round(v, 6) for v in row) for row in values.tolist())
