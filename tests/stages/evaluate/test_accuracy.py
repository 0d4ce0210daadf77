"""Evaluation: accuracy, divergence and costs against their definitions."""

import math
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from kdna_convert.core.errors import DataError, ModelError, NumericsError
from kdna_convert.core.measurements import Divergence, Evaluation
from kdna_convert.core.specs import Family, to_json
from kdna_convert.network.derive import derive
from kdna_convert.network.inference import evaluating
from kdna_convert.network.totals import macs, totals
from kdna_convert.stages.evaluate import accuracy, outputs
from kdna_convert.stages.evaluate.accuracy import divergence, divergence_from, evaluate
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.tasks import CLASSIFY, TASKS


def net(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 7),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def images(count: int = 12) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def labeled(model: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Batches of 5 whose labels are what the model itself answers."""
    labels = outputs_of(model, [x])[0].argmax(1)
    return list(zip(x.split(5), labels.split(5), strict=True))


# ---- accuracy


def scored(scores: Tensor, labels: Tensor) -> Mapping[str, float]:
    return CLASSIFY.scores(CLASSIFY.score((scores,), labels))


def test_accuracy_equals_a_count_by_hand() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [0, 1, 2, 3, 4, 5], [1, 0, 0, 0, 0, 0.5]])
    assert scored(scores, torch.tensor([0, 1, 0, 5])) == {"top1": 0.25, "top5": 0.75}


def test_with_fewer_than_five_classes_top_5_is_one() -> None:
    assert scored(torch.eye(3), torch.tensor([1, 1, 1])) == {"top1": 1 / 3, "top5": 1.0}


@pytest.mark.parametrize("label", [7, -1])
def test_a_label_beyond_the_outputs_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=r"KD402.*7 outputs.*--class-map"):
        evaluate(net(), [(images(2), torch.tensor([0, label]))])


def test_labels_from_the_nets_own_outputs_give_accuracy_1() -> None:
    model = net()
    evaluation = evaluate(model, labeled(model, images()), require_labels=True)
    assert (evaluation.top1, evaluation.top5, evaluation.images) == (1.0, 1.0, 12)
    assert (evaluation.agreement, evaluation.kl, evaluation.logit_error) == (None, None, None)


def test_without_labels_accuracy_is_none_or_refused_where_it_is_wanted() -> None:
    assert evaluate(net(), [images()]).top1 is None
    assert evaluate(net(), [(images(), None)]).top5 is None
    with pytest.raises(DataError, match="KD403"):
        evaluate(net(), [images()], require_labels=True)
    with pytest.raises(DataError, match="KD401"):
        evaluate(net(), [])


# ---- divergence


def test_divergence_is_its_definition() -> None:
    z = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    z0 = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    result = divergence((z,), (z0,))
    kl = F.kl_div(F.log_softmax(z, 1), F.log_softmax(z0, 1), reduction="batchmean", log_target=True)
    assert math.isclose(result.kl, float(kl), rel_tol=1e-5)
    assert math.isclose(result.logit_error, float((z - z0).norm() ** 2 / z0.norm() ** 2), rel_tol=1e-5)
    assert math.isclose(result.agreement, float((z.argmax(1) == z0.argmax(1)).float().mean()), rel_tol=1e-6)
    assert result.images == 50


def test_equal_logits_have_no_divergence() -> None:
    z = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * 50
    assert divergence((z,), (z,)) == Divergence(agreement=1.0, kl=0.0, logit_error=0.0, images=20)


def test_a_constant_added_to_all_logits_changes_the_error_but_not_the_answer() -> None:
    z = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    shifted = divergence((z + 3,), (z,))
    assert shifted.kl < 1e-12
    assert shifted.agreement == 1.0
    assert shifted.logit_error > 1


def test_logits_of_other_images_are_not_compared() -> None:
    with pytest.raises(ModelError, match="KD308"):
        divergence((torch.zeros(3, 5),), (torch.zeros(4, 5),))


def test_an_evaluation_beside_the_original_has_the_divergence_of_their_outputs() -> None:
    model, original, batches = net(0), net(1), list(images().split(5))
    by_net = evaluate(model, batches, original=original)
    assert divergence_from(original, batches)(model).kl == by_net.kl
    assert by_net.agreement is not None
    assert by_net.agreement < 1
    assert by_net.kl == divergence(outputs_of(model, batches), outputs_of(original, batches)).kl


# ---- what nets may return


class Returning(nn.Module):
    def __init__(self, wrap: object) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(x)  # type: ignore[operator]


def test_outputs_that_are_too_large_to_keep_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original, batches = net(0), net(1), list(images().split(5))
    kept = divergence_from(original, batches)(model)
    seen: list[int] = []
    original.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    monkeypatch.setattr(accuracy, "KEPT", 100)
    measure = divergence_from(original, batches)
    assert seen == [5]  # the first batch shows that they are too large
    assert measure(model) == kept
    assert seen == [5, 5, 5, 2]


def test_a_batch_runs_in_parts_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original, batches = net(0), net(1), list(images().split(5))
    whole, seen = divergence_from(original, batches)(model), list[int]()
    for each in (model, original):
        each.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    monkeypatch.setattr(outputs, "_SMALL", 0)
    one = 2 * 4 * 4 * 8 * 8  # the first convolution's outputs and the normalization's
    monkeypatch.setattr(outputs, "LIVE", 2 * one)
    measure = divergence_from(original, batches)
    assert seen == [1, 2, 2, 1, 2, 2, 1, 2]  # one image to measure the memory
    seen.clear()
    parted = measure(model)
    assert seen == [2, 2, 1, 2, 2, 1, 2]
    assert parted.kl == pytest.approx(whole.kl, rel=1e-6)
    labels = outputs_of(model, [images()])[0].argmax(1)
    assert evaluate(model, [(images(), labels)]).top1 == 1.0


def test_outputs_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original, batches = net(0), net(1), list(images().split(5))
    whole = divergence_from(original, batches)(model)
    monkeypatch.setattr(outputs, "_AT_ONCE", 10)
    assert divergence_from(original, batches)(model) == whole


def test_outputs_that_change_their_structure_are_refused() -> None:
    class Changing(nn.Module):
        def forward(self, x: Tensor) -> object:
            return x if len(x) == 5 else [x, x]

    with pytest.raises(ModelError, match=r"KD308.*on one batch.*on another.*--outputs"):
        outputs_of(Changing(), list(torch.randn(12, 4).split(5)), TASKS["raw"])


@pytest.mark.parametrize("wrap", [lambda x: [{"boxes": x}], lambda x: x.mean(), lambda x: {}, lambda x: x[:1]])
def test_an_output_without_one_row_per_image_is_refused(wrap: object) -> None:
    with pytest.raises(ModelError, match="KD308"):
        outputs_of(Returning(wrap), [images(2)])


def test_logits_that_are_not_finite_are_refused() -> None:
    model = net()
    with torch.no_grad():
        model[5].bias[0] = math.nan
    with pytest.raises(NumericsError, match="KD702"):
        evaluate(model, [images()])


# ---- the net is left as it was


def test_evaluation_leaves_modes_statistics_and_gradients_alone() -> None:
    model = net().train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evaluate(model, [images()])
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.is_grad_enabled()
    assert outputs_of(model, [images()])[0].requires_grad is False


def test_modes_come_back_after_a_failure() -> None:
    model = net().train()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model[1].training


# ---- costs


def test_parameters_macs_and_bytes_equal_a_count_by_hand() -> None:
    model = net()
    counts = totals(model, images())
    assert counts.params == 4 * 3 * 9 + 2 * 4 + 4 * 7 + 7
    assert counts.macs == 4 * 27 * 64 + 4 * 7
    assert counts.bytes == len(save(model.state_dict(), {"format": "pt"}))
    assert macs(model, images(1)) == macs(model, images(9))


def test_a_derived_layer_costs_the_macs_of_its_folded_form_and_the_parameters_it_stores() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False)), torch.zeros(1, 4, 6, 6)
    dense = totals(model, x)
    family = Family("basis", ("0",), {"rank": 2})
    derive(model, family, {"V": torch.ones(2, 36)}, [{"U": torch.ones(4, 2)}])
    assert (totals(model, x).macs, totals(model, x).params) == (dense.macs, 2 * 36 + 4 * 2)


def test_metadata_counts_towards_the_file() -> None:
    model, metadata = net(), {"format": "pt", "kdna": "1", "base_model": "a" * 100}
    assert evaluate(model, [images()], metadata=metadata).bytes == len(save(model.state_dict(), metadata))


def test_a_shared_parameter_counts_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    assert totals(model, torch.zeros(1, 6)).params == 36 + 12


def test_json_begins_with_the_documented_keys() -> None:
    import json

    printed = json.loads(to_json(evaluate(net(), [images()])))
    assert list(printed)[:8] == ["top1", "top5", "images", "agreement", "kl", "params", "bytes", "macs"]
    assert Evaluation(**printed).images == 12


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate(net(), list(images().split(4)), progress=lambda *step: calls.append(step))
    assert calls == [("evaluate", 0, 3), ("evaluate", 1, 3), ("evaluate", 2, 3), ("evaluate", 3, 3)]


def test_a_net_that_takes_one_image_at_a_time_is_evaluated() -> None:
    class OneByOne(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 1
            return super().forward(x)

    net, images = OneByOne(4, 3), torch.randn(5, 4)
    with torch.no_grad():
        torch.testing.assert_close(outputs_of(net, [images])[0], nn.functional.linear(images, net.weight, net.bias))


def test_a_forward_pass_that_fails_is_kd307() -> None:
    with pytest.raises(ModelError, match=r"KD307.*shape \(1, 4\)"):
        outputs_of(nn.Linear(5, 3), [torch.randn(2, 4)])
