"""Families from similarities. The only door to scikit-learn."""

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
    families: int | None = None,
) -> tuple[tuple[int, ...], float | None]:
    """Agglomerative clustering by the distance 1 - s: every layer's family, numbered by first member; the silhouette.

    Merge until no two families are as alike as `threshold` (a similarity), or until `families` are left; with neither,
    the number of the best silhouette. The similarity may be asymmetric (both directions are averaged); NaN counts as 0.
    The silhouette is None where it is undefined: for one family, or for as many as there are layers.
    Raises ValueError when both `threshold` and `families` are given.
    """
    if threshold is not None and families is not None:
        raise ValueError("give a threshold or a number of families, not both")
    known = np.nan_to_num(np.asarray(similarity, dtype=np.float64))
    distance = np.clip(1 - (known + known.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    count = len(distance)
    if threshold is None and families is None and count > 2:
        candidates = [_cut(distance, linkage, None, number) for number in range(2, count)]
        return max(((labels, _silhouette(distance, labels)) for labels in candidates), key=lambda one: one[1] or -1.0)
    if count < 2:
        return tuple(range(count)), None
    labels = _cut(distance, linkage, threshold, None if threshold is not None else min(families or 1, count))
    return labels, _silhouette(distance, labels)


def _cut(distance: NDArray[Any], linkage: Linkage, threshold: float | None, families: int | None) -> tuple[int, ...]:
    from sklearn.cluster import AgglomerativeClustering

    cut = None if threshold is None else 1 - threshold
    model = AgglomerativeClustering(n_clusters=families, metric="precomputed", linkage=linkage, distance_threshold=cut)
    found = model.fit_predict(distance).tolist()
    first = {label: number for number, label in enumerate(dict.fromkeys(found))}
    return tuple(first[label] for label in found)


def _silhouette(distance: NDArray[Any], labels: tuple[int, ...]) -> float | None:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(set(labels)) < len(labels):
        return None
    return float(silhouette_score(distance, labels, metric="precomputed"))
