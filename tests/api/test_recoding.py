"""Training the normalizations of a coded folder: the codes stay, and the file is no larger."""

import copy
from pathlib import Path

import pytest
import torch
from support.coded import coded, entropy_coded
from support.small_nets import small

from kdna_convert.api.code import recoded
from kdna_convert.api.finetune import finetune
from kdna_convert.core.errors import PlanError
from kdna_convert.network.batch_norm import foldable_norms
from kdna_convert.network.folder import Conversion, open_folder, save
from kdna_convert.network.folder.report import CodeReport, Report
from kdna_convert.network.packed import steps_of, unpack
from kdna_convert.network.stored import stored_state
from kdna_convert.stages.finetune.trainable import trainable


def nudged(conversion: Conversion, by: float) -> Conversion:
    """The same, its normalizations and biases trained so far."""
    trainable(conversion.model, "norms")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in conversion.model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return conversion


def test_an_untrained_net_is_coded_to_the_same_bytes() -> None:
    conversion = entropy_coded()
    assert recoded(conversion).coded == conversion.coded
    assert steps_of(conversion.coded or b"") == steps_of(recoded(conversion).coded or b"")


def test_recoding_keeps_the_codes_and_the_file_size() -> None:
    conversion = entropy_coded()
    before = unpack(conversion.coded or b"")
    after = recoded(nudged(copy.deepcopy(conversion), 0.1))
    tensors = unpack(after.coded or b"")
    free = {name for name, parameter in small().named_parameters() if parameter.ndim == 1}
    changed = {name for name in before if not torch.equal(before[name], tensors[name])}
    assert changed
    assert {name.rsplit(".", 1)[0] for name in changed} <= {name.rsplit(".", 1)[0] for name in free}
    assert all(torch.equal(before[name], tensors[name]) for name in before if before[name].ndim > 1)
    assert after.plan.planned.bytes <= conversion.report.code.target
    assert after.report.code.bytes == after.plan.planned.bytes
    stored = stored_state(after.model)
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


def test_shifts_are_rounded_more_coarsely_if_they_do_not_fit() -> None:
    conversion = nudged(entropy_coded(), 2.0)
    conversion.report = Report(code=CodeReport("entropy", 0, conversion.plan.planned.bytes + 8))
    after = recoded(conversion)
    assert after.plan.planned.bytes <= conversion.report.code.target
    norms = foldable_norms(conversion.model)
    assert all(steps_of(after.coded or b"")[name] > steps_of(conversion.coded or b"")[name] for name in norms)
    conversion.report = Report(code=CodeReport("entropy", 0, 100))
    with pytest.raises(PlanError, match=r"KD501: the trained normalizations take .* bytes, and 100 are allowed"):
        recoded(conversion)


def test_train_norms_selects_the_tensors_with_one_number_per_channel() -> None:
    conversion = coded("entropy")
    on, total = trainable(conversion.model, "norms")
    free = {name for name, parameter in conversion.model.named_parameters() if parameter.requires_grad}
    assert {"norm.weight", "norm.bias", "body.0.bias"} <= free
    assert not any(".adapter." in name or ".shared." in name or name.endswith("stem.weight") for name in free)
    assert 0 < on < total


def test_a_coded_folder_stays_coded_when_its_norms_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdna_convert.inputs.models import Loaded

    conversion = entropy_coded()
    original = small(0)
    folder = save(conversion, tmp_path / "coded")
    opened = open_folder(folder, model=small(1))
    monkeypatch.setattr(
        "kdna_convert.api.finetune.original_of",
        lambda made: Loaded(copy.deepcopy(original), made.plan.model, made.data),
    )
    images = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    tuned = finetune(opened, data=images, train="norms", steps=6, batch_size=8, lr=0.05, device="cpu")
    assert tuned.coded is not None
    assert tuned.coded != conversion.coded
    assert tuned.plan.planned.bytes <= conversion.report.code.target
    assert tuned.report.finetune.after.kl == pytest.approx(tuned.report.divergence.kl)
    other = finetune(opened, data=images, train="adapters", steps=2, batch_size=8, device="cpu")
    assert other.coded is None
