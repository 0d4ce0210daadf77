"""The tree by which layers were clustered: the order of its leaves, and its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.measurements import Matrix
from ..stages.analyze.clustering import Linkage, distances


@dataclass(frozen=True)
class Branch:
    """Two parts of the tree that meet at `height`; a part is (place of its middle, height of its own).

    `label` is that of all its leaves, None where these have several or none.
    """

    left: tuple[float, float]
    right: tuple[float, float]
    height: float
    label: int | None


@dataclass(frozen=True)
class Tree:
    """Leaves, by their place in the group, from left to right, and branches from the lowest."""

    order: tuple[int, ...]
    branches: tuple[Branch, ...] = ()


def tree_of(similarity: Matrix, linkage: Linkage, labels: Sequence[int | None]) -> Tree:
    """The tree of at least two layers. Of two parts, the one whose layers come first in the net is on the left."""
    import numpy as np
    from scipy.cluster.hierarchy import linkage as merged
    from scipy.spatial.distance import squareform

    distance = distances(np.array(similarity, dtype=np.float64))
    merges = merged(squareform(distance, checks=False), linkage)
    leaves: list[list[int]] = [[place] for place in range(len(distance))]
    parts = []
    for first, second, height, _ in merges:
        left, right = sorted((int(first), int(second)), key=lambda part: sum(leaves[part]) / len(leaves[part]))
        parts.append((left, right, float(height)))
        leaves.append(leaves[left] + leaves[right])
    order = leaves[-1]
    middles = {leaf: float(place) for place, leaf in enumerate(order)}
    heights = dict.fromkeys(order, 0.0)
    branches = []
    for node, (left, right, height) in enumerate(parts, len(order)):
        middles[node], heights[node] = (middles[left] + middles[right]) / 2, height
        own = {labels[leaf] for leaf in leaves[node]}
        ends = (middles[left], heights[left]), (middles[right], heights[right])
        branches.append(Branch(*ends, height, own.pop() if len(own) == 1 else None))
    return Tree(tuple(order), tuple(branches))
