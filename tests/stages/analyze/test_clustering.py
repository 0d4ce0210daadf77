"""Laws of clustering: blocks are found, clusters are numbered by their first member, and the silhouette."""

import numpy as np
import pytest

from kdna_convert.stages.analyze.clustering import cluster

BLOCKS = np.array(
    [
        [1.0, 0.1, 0.9, 0.1, 0.2],
        [0.1, 1.0, 0.1, 0.8, 0.1],
        [0.9, 0.1, 1.0, 0.1, 0.2],
        [0.1, 0.8, 0.1, 1.0, 0.1],
        [0.2, 0.1, 0.2, 0.1, 1.0],
    ]
)


def test_blocks_become_clusters_numbered_by_their_first_member() -> None:
    assert cluster(BLOCKS, threshold=0.5)[0] == (0, 1, 0, 1, 2)
    assert cluster(BLOCKS, clusters=3)[0] == (0, 1, 0, 1, 2)


@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
def test_without_threshold_and_count_the_best_silhouette_decides(linkage: str) -> None:
    labels, silhouette = cluster(BLOCKS, linkage=linkage)  # type: ignore[arg-type]
    assert labels == (0, 1, 0, 1, 2)
    others = [cluster(BLOCKS, clusters=number)[1] for number in (2, 4)]
    assert silhouette is not None
    assert silhouette > max(value for value in others if value is not None)


def test_the_threshold_is_a_similarity() -> None:
    assert cluster(BLOCKS, threshold=0.85)[0] == (0, 1, 0, 2, 3)
    assert cluster(BLOCKS, threshold=0.95)[0] == (0, 1, 2, 3, 4)
    assert cluster(BLOCKS, threshold=0.0)[0] == (0, 0, 0, 0, 0)


def test_the_silhouette_is_none_for_one_family_and_for_all_alone() -> None:
    assert cluster(BLOCKS, clusters=1) == ((0, 0, 0, 0, 0), None)
    assert cluster(BLOCKS, clusters=5) == ((0, 1, 2, 3, 4), None)


def test_distinct_blocks_have_a_high_silhouette() -> None:
    silhouette = cluster(np.kron(np.eye(2), np.ones((3, 3))), clusters=2)[1]
    assert silhouette == pytest.approx(1.0)


def test_both_directions_of_an_asymmetric_similarity_count_alike() -> None:
    lopsided = np.array([[1.0, 1.0, 0.0], [0.2, 1.0, 0.5], [0.0, 0.5, 1.0]])
    assert cluster(lopsided, clusters=2)[0] == (0, 0, 1)
    assert cluster(lopsided.T, clusters=2)[0] == (0, 0, 1)


def test_an_undefined_similarity_keeps_layers_apart() -> None:
    undefined = np.array([[1.0, np.nan, 0.7], [np.nan, 1.0, np.nan], [0.7, np.nan, 1.0]])
    assert cluster(undefined, threshold=0.1)[0] == (0, 1, 0)


def test_one_layer_or_none_can_be_clustered() -> None:
    assert cluster(np.ones((1, 1)), threshold=0.5) == ((0,), None)
    assert cluster(np.ones((0, 0))) == ((), None)
    assert cluster(np.ones((2, 2))) == ((0, 0), None)
    assert cluster(np.eye(2), clusters=9) == ((0, 1), None)


def test_a_threshold_together_with_a_count_is_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        cluster(BLOCKS, threshold=0.5, clusters=2)
