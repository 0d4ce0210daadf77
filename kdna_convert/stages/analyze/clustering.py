"""Cluster layers by their similarity, with scikit-learn."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Linkage = Literal["average", "complete", "single"]


def cluster(
    similarity: NDArray[Any],
    *,
    linkage: Linkage = "average",
    threshold: float | None = None,
    clusters: int | None = None,
) -> tuple[tuple[int, ...], float | None]:
    """Agglomerative clustering by the distance 1 - similarity.

    Args:
        similarity: A matrix (layers x layers). Both directions are averaged; NaN counts as 0.
        linkage: How the distance of two clusters follows from that of their members.
        threshold: Merge while two clusters are at least this similar.
        clusters: Merge until this number of clusters is left. With neither, the number with the best silhouette.

    Returns:
        The cluster of every layer, numbered by first member, and the silhouette (-1..1), None where it is undefined:
        for one cluster, or for as many as there are layers.

    Raises:
        ValueError: Both a threshold and a number of clusters were given.
    """
    if threshold is not None and clusters is not None:
        raise ValueError("give a threshold or a number of clusters, not both")
    distance = distances(similarity)
    count = len(distance)
    if threshold is None and clusters is None and count > 2:
        candidates = [_cut(distance, linkage, None, number) for number in range(2, count)]
        return max(((labels, _silhouette(distance, labels)) for labels in candidates), key=lambda one: one[1] or -1.0)
    if count < 2 or clusters == 1:
        return (0,) * count, None
    labels = _cut(distance, linkage, threshold, None if threshold is not None else min(clusters or 1, count))
    return labels, _silhouette(distance, labels)


def distances(similarity: NDArray[Any]) -> NDArray[Any]:
    """1 - similarity, symmetric, float64: both directions are averaged, NaN counts as 0, and the diagonal is 0."""
    filled = np.nan_to_num(np.asarray(similarity, dtype=np.float64))
    distance: NDArray[Any] = np.clip(1 - (filled + filled.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    return distance


def _cut(distance: NDArray[Any], linkage: Linkage, threshold: float | None, clusters: int | None) -> tuple[int, ...]:
    from sklearn.cluster import AgglomerativeClustering

    cut = None if threshold is None else 1 - threshold
    model = AgglomerativeClustering(n_clusters=clusters, metric="precomputed", linkage=linkage, distance_threshold=cut)
    labels = model.fit_predict(distance).tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return tuple(numbers[label] for label in labels)


def _silhouette(distance: NDArray[Any], labels: tuple[int, ...]) -> float | None:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(set(labels)) < len(labels):
        return None
    return float(silhouette_score(distance, labels, metric="precomputed"))
