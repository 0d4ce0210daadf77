"""The answers of two nets, compared in one pass: counts, confusions, and the inputs that are furthest apart."""

from typing import Any

import pytest
import torch
from support import task_nets, tiny
from torch import Tensor, nn

from kdna_convert.core.disagreement import Disagreement
from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data.class_names import class_names
from kdna_convert.stages.evaluate.accuracy import evaluate
from kdna_convert.stages.evaluate.box_matching import boxes_apart
from kdna_convert.stages.evaluate.compare_answers import AnswerComparison, compare_answers
from kdna_convert.stages.evaluate.input_pictures import picture_of, pixels
from kdna_convert.stages.evaluate.task_answers import KINDS
from kdna_convert.tasks import TASKS

SIDE = tiny.SIZE
CONFIG = DataConfig((3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGES = tiny.noise(60)
LABELS = torch.arange(60) % tiny.CLASSES


class Sensitive(nn.Module):
    """A net whose answers depend on single pixels, so that two of them differ."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.fc = nn.Linear(3 * SIDE * SIDE, tiny.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


def compared(batches: Any, task: str = "classify", nets: Any = None, **options: Any) -> AnswerComparison:
    model, original = nets or (Sensitive(1), Sensitive(0))
    return compare_answers(model, original, batches, task=TASKS[task], config=CONFIG, **options)


def labeled(batch: int = 16) -> list[Any]:
    return list(zip(IMAGES.split(batch), LABELS.split(batch), strict=True))


def test_both_evaluations_are_those_of_eval() -> None:
    found = compared(labeled())
    assert found.original == evaluate(Sensitive(0), labeled())
    assert found.converted == evaluate(Sensitive(1), labeled(), original=Sensitive(0))


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_the_examples_are_the_inputs_furthest_apart_however_they_come_in_batches(batch: int) -> None:
    with torch.no_grad():
        (z, z0) = (net(IMAGES).double().log_softmax(1) for net in (Sensitive(1), Sensitive(0)))
    kl = (z0.exp() * (z0 - z)).sum(1)
    found = compared([*IMAGES.split(batch)]).disagreement
    assert found.values == pytest.approx(kl.tolist(), rel=1e-5)
    assert [example.place for example in found.examples] == kl.argsort(descending=True)[:24].tolist()
    first = found.examples[0]
    assert first.original.classes == (int(z0[first.place].argmax()),)
    assert first.converted.probability == pytest.approx(float(z[first.place].exp().max()), rel=1e-5)


def test_the_lost_and_the_gained_answers_are_the_change_of_top1() -> None:
    found = compared(labeled())
    counts = found.disagreement.counts
    assert counts is not None
    assert counts.answers == 60
    assert counts.gained - counts.lost == round(60 * (found.converted.top1 - found.original.top1))  # type: ignore[operator]
    assert counts.changed == round(60 * (1 - found.converted.agreement))  # type: ignore[operator]
    assert counts.changed >= counts.lost + counts.gained  # type: ignore[operator]


def test_the_classes_sum_to_all_answers() -> None:
    found = compared(labeled())
    rows = found.disagreement.classes
    assert sorted(row.number for row in rows) == list(range(tiny.CLASSES))
    assert sum(row.count for row in rows) == 60
    assert sum(row.count * row.after for row in rows) == pytest.approx(60 * found.converted.top1)  # type: ignore[operator]
    weights = [abs(row.after - row.before) * row.count**0.5 for row in rows]
    assert weights == sorted(weights, reverse=True)


def test_new_confusions_are_wrong_answers_that_became_more_frequent() -> None:
    with torch.no_grad():
        after, before = (net(IMAGES).argmax(1) for net in (Sensitive(1), Sensitive(0)))
    rows = compared(labeled()).disagreement.confusions
    assert rows
    for row in rows:
        assert row.truth != row.answer
        of_class = row.truth == LABELS
        assert row.before == int((before[of_class] == row.answer).sum()) < row.after
        assert row.after == int((after[of_class] == row.answer).sum())
    increases = [row.after - row.before for row in rows]
    assert increases == sorted(increases, reverse=True)


def test_without_labels_the_answers_of_the_original_are_right() -> None:
    found = compared([IMAGES])
    rows = found.disagreement
    assert not rows.labeled
    assert found.original.top1 is None
    assert rows.counts is not None
    assert rows.counts.lost is None
    assert all(row.before == 1 for row in rows.classes)
    kept = sum(row.count * row.after for row in rows.classes)
    assert kept == pytest.approx(60 * found.converted.agreement)  # type: ignore[operator]
    assert all(row.before == 0 for row in rows.confusions)
    assert sum(row.after for row in rows.confusions) == rows.counts.changed


def test_equal_nets_have_no_example() -> None:
    found = compared(labeled(), nets=(Sensitive(0), Sensitive(0))).disagreement
    assert found.examples == ()
    assert found.confusions == ()
    assert {row.before - row.after for row in found.classes} == {0}
    image = task_nets.net("image")
    assert compared([IMAGES], "image", (image, image)).disagreement.examples == ()


def test_labels_of_other_classes_are_refused_as_by_eval() -> None:
    with pytest.raises(DataError, match="KD402"):
        compared([(IMAGES, LABELS + 1)])


def test_yes_or_no_answers_are_two_classes_for_each_output() -> None:
    labels = (torch.arange(60)[:, None] + torch.arange(tiny.CLASSES)) % 2
    found = compared([(IMAGES, labels)], "binary")
    rows = found.disagreement
    assert sum(row.count for row in rows.classes) == 60 * tiny.CLASSES
    right = sum(row.count * row.after for row in rows.classes) / (60 * tiny.CLASSES)
    assert right == pytest.approx(found.converted.measures["accuracy"])
    assert all(row.truth // 2 == row.answer // 2 for row in rows.confusions)
    for example in rows.examples:
        (number,) = example.original.classes
        assert example.truth is not None
        assert example.truth.classes == (number // 2 * 2 + int(labels[example.place, number // 2]),)


def test_the_shares_of_pixel_classes_are_those_of_the_mean_iou() -> None:
    nets = task_nets.net("segment", 1), task_nets.net("segment", 0)
    with torch.no_grad():
        masks = nets[1](IMAGES)["out"].argmax(1)
    masks[:, :3] = 255
    found = compared([(IMAGES, masks)], "segment", nets)
    rows = found.disagreement.classes
    assert all(row.before == 1 for row in rows)
    present = sum(row.after for row in rows)  # a class that the converted net alone has counts as 0 in the mean
    assert present / found.converted.measures["miou"] == pytest.approx(
        round(present / found.converted.measures["miou"])
    )
    assert found.disagreement.counts is not None
    assert found.disagreement.counts.answers == 60 * (SIDE - 3) * SIDE
    assert [name for name, _ in found.disagreement.examples[0].pictures] == ["input", "pixels with another answer"]


def test_images_are_shown_with_the_lowest_psnr_first_and_one_near_the_median() -> None:
    nets = task_nets.net("image", 1), task_nets.net("image", 0)
    found = compared([*IMAGES.split(9)], "image", nets).disagreement
    values = sorted(found.values)
    assert [example.value for example in found.examples] == values[:3]
    assert found.typical is not None
    assert abs(values.index(found.typical.value) - 30) <= 3
    titles = [title for title, _ in found.examples[0].pictures]
    assert titles[:3] == ["input", "original", "converted"]
    assert titles[3].startswith("difference × ")
    sizes = [picture.width for _, picture in found.examples[0].pictures]
    assert sizes == [SIDE, 2 * SIDE, 2 * SIDE, 2 * SIDE]


def test_boxes_are_apart_by_those_that_one_net_alone_has() -> None:
    box = [0.0, 0, 10, 10, 0.9, 1]
    own = torch.tensor([box, [20.0, 20, 30, 30, 0.8, 2], [-1.0] * 6])
    assert boxes_apart(own, own) == 0
    assert boxes_apart(own, own[:1]) == 1
    assert boxes_apart(own, own[2:]) == 2
    shifted = own.clone()
    shifted[0, :4] += torch.tensor([0.0, 0, 0, 10])  # twice as high: an intersection over union of a half
    assert boxes_apart(own, shifted) == pytest.approx(0.5)
    other_class, unsure = own.clone(), own.clone()
    other_class[0, 5], unsure[0, 4] = 3, 0.1
    assert boxes_apart(own, other_class) == 2
    assert boxes_apart(own, unsure) == 1


def test_boxes_are_in_shares_of_the_picture() -> None:
    nets = task_nets.net("detect", 1), task_nets.net("detect", 0)
    found = compared([IMAGES], "detect", nets).disagreement
    assert len(found.examples) == 6
    boxes = [box for example in found.examples for box in (*example.original.boxes, *example.converted.boxes)]
    assert boxes
    assert all(0 <= corner <= 1.25 for box in boxes for corner in box.corners)


@pytest.mark.parametrize("task", ["regress", "embed", "raw"])
def test_other_tasks_have_a_distance_of_each_input(task: str) -> None:
    found = compared([IMAGES], task).disagreement
    assert len(found.values) == 60
    assert [example.value for example in found.examples] == sorted(found.values, reverse=True)[:12]
    assert found.counts is None


def test_every_task_has_answers_to_show() -> None:
    assert KINDS.keys() == TASKS.keys()


def test_a_shown_picture_has_the_pixels_of_the_file() -> None:
    values = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = DataConfig((3, 5, 7))
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (config.mean, config.std))
    picture = picture_of((values.float() / 255 - mean) / std, config)
    assert picture is not None
    shown = pixels(picture)
    assert (shown.width, shown.height, shown.channels) == (7, 5, 3)
    assert shown.values == values.movedim(0, 2).contiguous().numpy().tobytes()
    reduced = pixels(picture, 4)
    assert (reduced.width, reduced.height) == (4, 3)


def seen_as(shape: tuple[int, ...], **config: Any) -> Disagreement:
    """What is kept of inputs of this shape."""
    torch.manual_seed(0)
    inputs = torch.randn(6, *shape)
    own = DataConfig(shape, (0.0,) * shape[0], (1.0,) * shape[0], **config)
    nets = [nn.Sequential(nn.Flatten(1), nn.Linear(inputs[0].numel(), 3)) for _ in range(2)]
    return compare_answers(*nets, [inputs], task=TASKS["classify"], config=own).disagreement


def test_inputs_that_are_no_pictures_are_drawn_as_waves_or_said_not_to_be() -> None:
    assert seen_as((1, 8, 8)).examples[0].pictures[0][1].channels == 1
    clip = seen_as((3, 4, 8, 8))
    assert clip.examples[0].pictures[0][1].width == 8  # the middle frame
    assert clip.unseen == ""
    sound = seen_as((2, 400), sample_rate=8000)
    assert sound.examples[0].pictures == ()
    assert len(sound.examples[0].wave) == 80
    assert all(-1 <= low <= top <= 1 for top, low in sound.examples[0].wave)
    for shape in ((2, 8, 8), (1, 400)):
        found = seen_as(shape)
        assert found.examples[0].pictures == found.examples[0].wave == ()
        assert f"shape {shape}" in found.unseen


def test_without_pictures_the_answers_are_the_same() -> None:
    with_pictures, without = (compared(labeled(), pictures=shown).disagreement for shown in (True, False))
    assert all(example.pictures for example in with_pictures.examples)
    assert all(example.pictures == () for example in without.examples)
    assert [example.original for example in without.examples] == [one.original for one in with_pictures.examples]
    assert without.classes == with_pictures.classes


def test_classes_have_the_names_of_the_user_else_of_the_net() -> None:
    assert class_names({"cat": 1, "dog": 0}) == {0: "dog", 1: "cat"}
    assert class_names({"cat": 1}, ["a", "b", "c"]) == {0: "a", 1: "cat", 2: "c"}
    assert class_names({}, {"0": "a"}) == class_names({}) == {}
    assert class_names({"n01440764": 0, "n02012849": 1, "n03126707": 2, "n99999999": 3}) == {
        0: "tench",
        1: "crane (n02012849)",
        2: "crane (n03126707)",
        3: "n99999999",
    }
