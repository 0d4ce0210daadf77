"""The contract of every task in TASKS."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdna_convert.core.errors import DataError, ModelError
from kdna_convert.core.measurements import MEASURES
from kdna_convert.stages.evaluate.outputs import concatenated
from kdna_convert.tasks import TASKS, Outputs

IMAGES = 6
NAMES = sorted(TASKS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def boxes(images: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Three certain boxes for every image."""
    corners = 20 * randn(images, 3, 2, seed=seed).abs()
    return [
        {
            "boxes": torch.cat([own, own + 20], 1),
            "scores": torch.tensor([0.9, 0.8, 0.7]),
            "labels": torch.tensor([1, 2, 1]),
        }
        for own in corners
    ]


# What a net returns that has the task.
RETURNED: dict[str, Callable[[int], object]] = {
    "classify": lambda seed: randn(IMAGES, 7, seed=seed),
    "binary": lambda seed: randn(IMAGES, 3, seed=seed),
    "regress": lambda seed: randn(IMAGES, 1, seed=seed),
    "embed": lambda seed: randn(IMAGES, 16, seed=seed),
    "image": lambda seed: randn(IMAGES, 3, 16, 16, seed=seed).sigmoid(),
    "segment": lambda seed: {"out": randn(IMAGES, 5, 6, 6, seed=seed), "aux": None},
    "detect": lambda seed: boxes(IMAGES, seed),
    "sequence": lambda seed: randn(IMAGES, 5, 9, seed=seed),
    "raw": lambda seed: [randn(IMAGES, 4, seed=seed), {"more": randn(IMAGES, 2, 3, seed=seed)}],
}
# Labels that the outputs of seed 0 answer rightly.
LABELS: dict[str, Callable[[Outputs], Tensor]] = {
    "classify": lambda own: own[0].argmax(1),
    "binary": lambda own: (own[0] > 0).long(),
    "regress": lambda own: own[0].flatten(),
    "image": lambda own: own[0],
    "segment": lambda own: own[0].argmax(1),
    "detect": lambda own: own[0][:, :10, [0, 1, 2, 3, 5]],
    "sequence": lambda own: _rows(own[0]),
}
BEST = {"mean_absolute_error": 0.0, "token_error": 0.0, "psnr": 100.0}


def _rows(z: Tensor) -> Tensor:
    """The decoded rows, padded with -1."""
    found = [[label for label in torch.unique_consecutive(row).tolist() if label] for row in z.argmax(1)]
    length = max(map(len, found))
    return torch.tensor([row + [-1] * (length - len(row)) for row in found])


def outputs(name: str, seed: int = 0) -> Outputs:
    """A net's outputs; a detector's with the features of its backbone."""
    own = TASKS[name].outputs(RETURNED[name](seed), IMAGES)
    return (*own, randn(IMAGES, 8, 4, 4, seed=seed)) if name == "detect" else own


@pytest.mark.parametrize("name", NAMES)
def test_equal_outputs_have_no_distance(name: str) -> None:
    task, own = TASKS[name], outputs(name)
    measured = task.divergence(task.compare(own, own))
    assert measured.distance == pytest.approx(0, abs=1e-12)
    assert measured.agreement in (1.0, None)
    assert (measured.images, measured.task) == (IMAGES, name)
    assert float(task.loss(own, own, 2.0)) == pytest.approx(0, abs=1e-6)
    agreement = float(task.agreement(own, own))
    assert agreement == 1 or math.isnan(agreement)


@pytest.mark.parametrize("name", NAMES)
def test_other_outputs_have_a_distance_that_gradients_lower(name: str) -> None:
    task, own, target = TASKS[name], outputs(name, 1), outputs(name)
    assert task.divergence(task.compare(own, target)).distance > 0.1
    free = tuple(each.clone().requires_grad_() for each in own)
    loss = task.loss(free, target, 1.0)
    loss.backward()
    stepped = tuple(each.detach() - 1e-2 * (0 if each.grad is None else each.grad) for each in free)
    assert float(task.loss(stepped, target, 1.0)) < float(loss.detach())


@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_batches_are_those_of_the_whole(name: str) -> None:
    task, own, target = TASKS[name], outputs(name, 1), outputs(name)
    parts = [
        task.compare(tuple(each[rows] for each in own), tuple(each[rows] for each in target))
        for rows in (slice(0, 4), slice(4, IMAGES))
    ]
    whole = task.compare(own, target)
    assert all(len(rows) == IMAGES for rows in whole.values())
    again, measured = task.divergence(concatenated(parts)), task.divergence(whole)
    assert again.distance == pytest.approx(measured.distance, rel=1e-12)
    assert again.measures == pytest.approx(measured.measures)


@pytest.mark.parametrize("name", NAMES)
def test_drawn_gradients_have_the_curvature_of_the_loss(name: str) -> None:
    """Their mean square is the diagonal of the loss's Hessian at equal outputs, up to a factor for each tensor."""
    task, own = TASKS[name], outputs(name)
    place = len(own) - 1
    generator, squares = torch.Generator().manual_seed(0), torch.zeros_like(own[place])
    for _ in range(600):
        free = tuple(each.clone().requires_grad_() for each in own)
        drawn = task.sampled(free, generator)
        assert drawn is not None
        drawn.backward()
        squares += free[place].grad.square()  # type: ignore[union-attr]
    step, curvature = 1e-2, torch.zeros(own[place].numel(), dtype=torch.float64)
    exact = tuple(each.double() for each in own)
    for index in range(min(60, curvature.numel())):
        moved = exact[place].clone()
        moved.view(-1)[index] += step
        curvature[index] = task.loss((*exact[:place], moved), exact, 2.0) / step**2
    pair = torch.stack([squares.flatten().double(), curvature])[:, : min(60, curvature.numel())]
    ratio = pair[0] / pair[1]
    assert float(ratio.std() / ratio.mean()) < 0.35


@pytest.mark.parametrize("name", sorted(LABELS))
def test_right_labels_score_best_and_wrong_ones_less(name: str) -> None:
    task, own = TASKS[name], outputs(name)
    labels = LABELS[name](own)
    scores = task.scores(task.score(own, labels))
    assert scores
    assert set(scores) <= set(MEASURES)
    assert scores == pytest.approx({key: BEST.get(key, 1.0) for key in scores}, abs=1e-6)
    worse = task.scores(task.score(outputs(name, 1), labels))
    for key, value in worse.items():
        best = BEST.get(key, 1.0)
        assert value > best if best == 0 else value <= best, key
    assert worse != scores


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_another_task_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="KD402"):
        TASKS[name].score(outputs(name), torch.full((IMAGES, 2, 2), 99))


@pytest.mark.parametrize("name", sorted(set(LABELS) - {"detect"}))
def test_gradients_of_the_label_loss_move_towards_the_labels(name: str) -> None:
    task, labels = TASKS[name], LABELS[name](outputs(name))
    free = tuple(each.clone().requires_grad_() for each in outputs(name, 1))
    loss = task.label_loss(free, labels)
    loss.backward()
    stepped = tuple(each.detach() - 1e-2 * each.grad for each in free)  # type: ignore[operator]
    assert float(task.label_loss(stepped, labels)) < float(loss.detach())


@pytest.mark.parametrize("name", NAMES)
def test_outputs_without_a_row_for_every_image_are_refused(name: str) -> None:
    for returned in (torch.zeros(()), {}, torch.zeros(IMAGES + 1, 5)):
        with pytest.raises(ModelError, match="KD308"):
            TASKS[name].outputs(returned, IMAGES)


@pytest.mark.parametrize("name", NAMES)
def test_the_measures_that_count_points_are_measured(name: str) -> None:
    task, own = TASKS[name], outputs(name)
    by_label, by_original = task.points
    if by_label is not None:
        assert by_label in task.scores(task.score(own, LABELS[name](own)))
    if by_original is not None:
        measured = task.divergence(task.compare(own, own))
        assert by_original == "agreement" or by_original in measured.measures
        assert MEASURES[by_original].unit == "%"


@pytest.mark.parametrize("name", sorted(set(LABELS) - {"detect"}))
@pytest.mark.parametrize("shape", [(IMAGES, 99), (IMAGES - 1, 1)])
def test_the_label_loss_refuses_the_labels_that_are_not_scored(name: str, shape: tuple[int, ...]) -> None:
    labels = torch.full(shape, 99)
    for judge in (TASKS[name].score, TASKS[name].label_loss):
        with pytest.raises(DataError, match="KD402"):
            judge(outputs(name), labels)


def test_pixels_without_a_class_do_not_count() -> None:
    task, own = TASKS["segment"], outputs("segment")
    labels = own[0].argmax(1)
    labels[0] = 255
    assert task.scores(task.score(own, labels)) == {"miou": 1.0, "pixel_accuracy": 1.0}
    assert task.scores(task.score(own, torch.full_like(labels, 255))) == {}


def test_a_detector_that_cannot_be_compared_is_refused() -> None:
    task = TASKS["detect"]
    own = task.outputs([each | {"scores": each["scores"] / 10} for each in boxes(IMAGES)], IMAGES)
    with pytest.raises(ModelError, match=r"KD308.*certain of no box.*--task raw"):
        task.divergence(task.compare(own, own))


def test_an_output_that_is_zero_has_an_absolute_error() -> None:
    zeros = (torch.zeros(IMAGES, 4),)
    assert TASKS["raw"].divergence(TASKS["raw"].compare((torch.ones(IMAGES, 4),), zeros)).distance == 4 * IMAGES
