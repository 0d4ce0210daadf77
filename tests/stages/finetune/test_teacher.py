"""A fine-tune towards another net than the original: the laws of `teacher`."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.fine_tuning import images, pair, state
from torch import nn
from torch.utils.data import TensorDataset

from kdna_convert.core.errors import ModelError, RecipeError
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.finetune import Settings, Student, finetune


def other(classes: int = 5) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes))


def test_a_net_learns_the_outputs_of_its_teacher() -> None:
    model, original = pair()
    teacher, inputs = other().eval(), images()
    before, kept = divergence(outputs_of(model, [inputs]), outputs_of(teacher, [inputs])).kl, state(teacher)
    settings = Settings(steps=40, batch_size=32, train="all", lr=3e-2)
    tuned = finetune(Student(model, original, teacher), images(), settings, heldout=inputs)
    assert tuned.before is not None
    assert tuned.after is not None
    assert tuned.before.kl == pytest.approx(before, rel=1e-4)
    assert tuned.after.kl < 0.7 * before
    assert tuned.after.kl == pytest.approx(
        divergence(outputs_of(model, [inputs]), outputs_of(teacher, [inputs])).kl, rel=1e-3
    )
    assert all(torch.equal(kept[name], tensor) for name, tensor in state(teacher).items())
    assert teacher.training is False


def test_stages_are_still_matched_with_the_originals() -> None:
    model, original = pair()
    twin = copy.deepcopy(model)
    settings = Settings(steps=3, batch_size=32, feature_weight=5.0)
    finetune(Student(model, original, other().eval()), images(), settings)
    finetune(Student(twin, original), images(), settings)
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    from kdna_convert.api.finetune import _teacher
    from kdna_convert.core.specs import DataConfig
    from kdna_convert.tasks import CLASSIFY

    _, original = pair()
    config = DataConfig(input_size=(6, 6, 6))
    with pytest.raises(ModelError, match=r"(?s)KD311: .* has 7 classes, and the net 5"):
        _teacher(other(7), {}, original, config, CLASSIFY)


def test_the_best_state_is_chosen_with_the_label_loss() -> None:
    model, original = pair()
    data = TensorDataset(images(64), torch.arange(64) % 5)
    settings = Settings(steps=30, batch_size=32, train="all", lr=3e-2, label_weight=10.0, save_every=10)
    before = F.cross_entropy(outputs_of(model, [images(64)])[0], torch.arange(64) % 5)
    tuned = finetune(Student(model, original), data, settings, heldout=data)
    assert tuned.kept
    assert tuned.before is not None
    assert tuned.after is not None
    assert tuned.after.kl > tuned.before.kl  # further from the original, and kept: the labels asked for it
    assert F.cross_entropy(outputs_of(model, [images(64)])[0], torch.arange(64) % 5) < before


def test_an_untrained_routed_net_needs_a_teacher() -> None:
    import kdna_convert
    from kdna_convert.api.finetune import finetune as tune
    from kdna_convert.inputs.recipe import parse_recipe

    recipe = parse_recipe("scheme: dense\nrouting: se\ncalibration: {images: 8, heldout: 8}")
    conversion = kdna_convert.convert(
        "kdna_convert.inputs.digits:digits_net", recipe=recipe, data=torch.randn(24, 1, 12, 12)
    )
    with pytest.raises(RecipeError, match=r"KD208: this net answers as its original does.* --teacher MODEL"):
        tune(conversion, data=torch.randn(24, 1, 12, 12), steps=1)
