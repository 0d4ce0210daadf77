"""Laws of the tree: its leaves are the layers, and its branches those of the clustering."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kdna_convert.core.measurements import Matrix
from kdna_convert.html.tree import tree_of
from kdna_convert.stages.analyze.clustering import Linkage, cluster

LINKAGES: tuple[Linkage, ...] = ("average", "complete", "single")


def alike(count: int, seed: int = 0) -> NDArray[np.float64]:
    features = np.random.default_rng(seed).random((count, 3))
    return 1 - np.linalg.norm(features[:, None] - features[None], axis=2) / 2


def plain(similarity: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in similarity)


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("count", [2, 3, 20])
def test_every_layer_is_a_leaf_and_every_branch_is_above_its_parts(linkage: Linkage, count: int) -> None:
    tree = tree_of(plain(alike(count)), linkage, [0] * count)
    assert sorted(tree.order) == [*range(count)]
    assert len(tree.branches) == count - 1
    for branch in tree.branches:
        assert branch.height >= max(branch.left[1], branch.right[1]) >= 0
        assert branch.left[0] < branch.right[0]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_cluster_is_a_branch_of_its_color_alone(linkage: Linkage) -> None:
    similarity = alike(20)
    labels, _ = cluster(similarity, linkage=linkage, clusters=4)
    tree = tree_of(plain(similarity), linkage, labels)
    for label in set(labels):
        places = [place for place, leaf in enumerate(tree.order) if labels[leaf] == label]
        assert places == [*range(places[0], places[-1] + 1)]
        own = [branch for branch in tree.branches if branch.label == label]
        assert len(own) == len(places) - 1


def test_of_equal_layers_the_order_is_that_of_the_net() -> None:
    assert tree_of(plain(np.ones((6, 6))), "average", [0] * 6).order == (0, 1, 2, 3, 4, 5)


def test_undefined_similarities_count_as_none() -> None:
    similarity = np.full((4, 4), np.nan)
    assert {branch.height for branch in tree_of(plain(similarity), "average", [None] * 4).branches} == {1.0}
