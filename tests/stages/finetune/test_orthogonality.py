"""The orthogonality penalty on shared rows: its value, where it applies, and its effect."""

import math

import pytest
import torch
from support.fine_tuning import MEMBERS, finetune, images, pair
from torch import nn

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.specs import Family
from kdna_convert.network.derive import derive, derived_layers
from kdna_convert.stages.finetune.loss import crowding, trained_bases

OWN = {"rank": 2}


def test_orthogonal_rows_of_any_length_have_no_penalty() -> None:
    rows = torch.linalg.qr(torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q.T
    assert float(crowding([rows * torch.tensor([[1.0], [20.0], [1e-3], [3.0]])])) == pytest.approx(0, abs=1e-20)


def test_the_penalty_is_the_sum_of_squared_cosines_over_the_number_of_rows() -> None:
    rows = torch.tensor([[1.0, 0.0], [math.cos(0.3), math.sin(0.3)]], dtype=torch.float64)
    once = 2 * math.cos(0.3) ** 2 / 2
    assert float(crowding([rows])) == pytest.approx(once)
    assert float(crowding([rows, torch.eye(3, dtype=torch.float64)])) == pytest.approx(once / 2)


def test_more_rows_than_columns_reach_the_welch_bound() -> None:
    angles = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    tight = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert float(crowding([tight])) == pytest.approx(3 / 2 - 1)


def test_every_shared_tensor_counts_once_and_only_where_it_trains() -> None:
    model, _ = pair()
    (basis,) = trained_bases(model)
    assert basis is derived_layers(model)["0"].shared["V"]
    basis.requires_grad_(False)
    assert trained_bases(model) == ()


def test_the_penalty_makes_rows_more_orthogonal() -> None:
    gaps = []
    for weight in (0.0, 10.0):
        model, original = pair()
        basis = derived_layers(model)["0"].shared["V"]
        with torch.no_grad():
            basis[1] += basis[0]
        options = {"train": "shared", "epochs": 20, "batch_size": 32, "lr": 1e-2, "orthogonality": weight}
        finetune(model, original, images(), **options)
        gaps.append(float(crowding([basis.detach()])))
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_penalty_is_computed_in_full_precision(precision: str) -> None:
    model, original = pair()
    tuned = finetune(
        model, original, images(), train="shared", steps=2, batch_size=32, orthogonality=1e-2, precision=precision
    )
    assert all(math.isfinite(loss) for loss in tuned.losses)
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", enabled=precision == "bf16", dtype=torch.bfloat16):
        assert crowding([rows]).dtype == torch.float32


def test_the_penalty_needs_shared_tensors_that_train() -> None:
    with pytest.raises(RecipeError, match=r"KD208: orthogonality.*--train shared"):
        finetune(*pair(), images(), orthogonality=0.1)
    _, original = pair()
    model = nn.Sequential(*(original[n] for n in range(len(original))))
    for name in MEMBERS:
        adapter = {"U": torch.randn(6, 2), "V": torch.randn(2, 54)}
        derive(model, Family("lowrank", (name,), OWN), {}, [adapter])
    with pytest.raises(RecipeError, match=r"KD208: orthogonality: no family"):
        finetune(model, pair()[1], images(), train="shared", orthogonality=0.1)
