"""Which layers could share, how similar they are, and their clusters by similarity."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.errors import NumericsError, RecipeError
from ...core.linalg import FULL_METRIC_PATCH, JITTER, Kronecker, damp, kronecker
from ...core.measurements import Analysis, Group, Matrix
from ...core.specs import Layer, Progress
from ...network.standardizing import running_kernel
from .clustering import Linkage, cluster
from .moments import Moments
from .similarity import METRICS, Kernel


@dataclass(frozen=True)
class Clustering:
    """How clusters are found: by the similarity `metric`, merged with `linkage`.

    Merging stops at `threshold`, the least similarity at which two clusters merge, or at a number of `clusters`; with
    neither, at the best silhouette.
    """

    metric: str = "explained"
    linkage: Linkage = "average"
    threshold: float | None = None
    clusters: int | None = None


_CLUSTERING = Clustering()


def analyze(
    model: nn.Module,
    layers: Sequence[Layer],
    moments: Moments,
    *,
    group: Callable[[Layer], Hashable | None],
    clustering: Clustering = _CLUSTERING,
    metrics: Sequence[str] = tuple(METRICS),
    dtype: torch.dtype = torch.float64,
    progress: Progress | None = None,
) -> Analysis:
    """Compare the layers of every group, and cluster each group.

    Args:
        model: The original net.
        layers: Its surveyed layers. Layers with a reason are left out.
        moments: Their moments; a layer without moments is compared by its weights alone.
        group: The key of a layer's group, None for a layer to leave out.
        clustering: How clusters are found.
        metrics: The similarities to compute; the metric of `clustering` is added.
        dtype: Of the work. float32 takes half the time.
        progress: Called after each group.

    Raises:
        RecipeError: KD203 for an unknown metric, or for a threshold together with a number of clusters.
        NumericsError: KD701 for a weight that is not finite; it names the layer.
    """
    shown = tuple(dict.fromkeys((*metrics, clustering.metric)))
    _check(clustering, shown)
    parts = group_layers(layers, group)
    groups: list[Group] = []
    for done, (key, members) in enumerate(parts.items()):
        kernels = [_kernel(model, layer, moments, dtype) for layer in members]
        groups.append(_group(str(key), members, kernels, clustering, shown))
        if progress is not None:
            progress(f"compare: {len(members)} layers", done + 1, len(parts))
    grouped = {name for one in groups for name in one.members}
    return Analysis(
        layers=tuple(layers),
        groups=tuple(sorted(groups, key=lambda one: -one.params)),
        alone=tuple(layer.name for layer in layers if layer.reason is None and layer.name not in grouped),
        metric=clustering.metric,
        params=sum(parameter.numel() for parameter in model.parameters()),
        linkage=clustering.linkage,
    )


def group_layers(
    layers: Sequence[Layer], group: Callable[[Layer], Hashable | None], at_least: int = 2
) -> dict[Hashable, tuple[Layer, ...]]:
    """The layers by the key of their group; groups with fewer than `at_least` members are left out.

    Layers with a reason and layers whose key is None are in no group.
    """
    groups: dict[Hashable, list[Layer]] = {}
    for layer in layers:
        key = group(layer) if layer.reason is None else None
        if key is not None:
            groups.setdefault(key, []).append(layer)
    return {key: tuple(members) for key, members in groups.items() if len(members) >= at_least}


def _check(clustering: Clustering, metrics: Sequence[str]) -> None:
    unknown = [name for name in (clustering.metric, *metrics) if name not in METRICS]
    if unknown:
        raise RecipeError("KD203", f"metric: must be one of {', '.join(METRICS)}, got {unknown[0]!r}")
    if clustering.threshold is not None and clustering.clusters is not None:
        raise RecipeError("KD203", "give a threshold or a number of clusters, not both")


def _group(
    key: str, members: Sequence[Layer], kernels: Sequence[Kernel], clustering: Clustering, metrics: Sequence[str]
) -> Group:
    """One group with its similarities and clusters."""
    matrices = {name: METRICS[name](kernels) for name in metrics}
    labels, silhouette = cluster(
        matrices[clustering.metric].numpy(),
        linkage=clustering.linkage,
        threshold=clustering.threshold,
        clusters=None if clustering.clusters is None else min(clustering.clusters, len(members)),
    )
    return Group(
        key=key,
        members=tuple(layer.name for layer in members),
        similarities={name: _matrix(matrix) for name, matrix in matrices.items()},
        clusters=labels,
        silhouette=silhouette,
        params=sum(layer.params for layer in members),
    )


def _kernel(model: nn.Module, layer: Layer, moments: Moments, dtype: torch.dtype) -> Kernel:
    kernel = running_kernel(model.get_submodule(layer.name)).cpu().to(dtype)
    if not kernel.isfinite().all():
        raise NumericsError("KD701", f"{layer.name}: the weight holds NaN or infinity")
    own = moments.get(layer.name)
    if own is None:
        return Kernel(layer.shape, kernel.flatten(1))
    moment = damp(own.second, JITTER)
    if isinstance(moment, Tensor) and len(moment) > FULL_METRIC_PATCH:  # as fits search with (decision 0003)
        moment = kronecker(moment, layer.shape[1])
    parts = [part.to(dtype) for part in (moment if isinstance(moment, Kronecker) else (moment,))]
    return Kernel(layer.shape, kernel.flatten(1), Kronecker(*parts) if len(parts) > 1 else parts[0], own.gram_ee)


def _matrix(values: Tensor) -> Matrix:
    return tuple(tuple(None if math.isnan(v) else round(v, 6) for v in row) for row in values.tolist())
