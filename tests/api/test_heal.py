"""Families converted and healed one by one: their order, what is trained, on which images, and what is reported."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command import NET, convert, kdna
from support.plans import family, moments_of, plan_for
from support.small_nets import MEMBERS, images, small
from support.tiny import net, noise
from torch import nn

import kdna_convert
from kdna_convert.core.errors import DataError
from kdna_convert.core.measurements import Divergence
from kdna_convert.core.specs import Plan
from kdna_convert.inputs.data import as_images
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.derive import derived_layers
from kdna_convert.stages.convert.fit import convert as convert_by_plan

pytestmark = pytest.mark.usefixtures("quick_predictions")


def three() -> tuple[nn.Module, Plan]:
    """A net, and a plan of a family a layer, the last one with the least predicted error."""
    original = small()
    plan = plan_for(original, *(family("lowrank", (name,)) for name in MEMBERS))
    return original, replace(plan, predicted=dict(zip(MEMBERS, (0.2, 0.3, 0.1), strict=True)))


def test_families_are_converted_by_rising_predicted_error_and_reported_in_plan_order() -> None:
    original, plan = three()
    converted: list[set[str]] = []

    def heal(model: nn.Module) -> Divergence:
        converted.append(set(derived_layers(model)))
        return Divergence(1.0, len(converted) / 10, 0.0, 1)

    _, fits = convert_by_plan(original, plan, moments_of(original), heal=heal)
    first, second, third = MEMBERS[2], MEMBERS[0], MEMBERS[1]
    assert converted == [{first}, {first, second}, {first, second, third}]
    assert [(fit.owner, fit.healed) for fit in fits] == list(zip(MEMBERS, (0.2, 0.3, 0.1), strict=True))


def test_the_next_family_is_converted_in_the_healed_net() -> None:
    original, plan = three()
    shift = torch.full((6,), 0.25)

    def heal(model: nn.Module) -> None:
        with torch.no_grad():
            model.norm.bias += shift

    converted, fits = convert_by_plan(original, plan, moments_of(original), heal=heal)
    plain, same = convert_by_plan(original, plan, moments_of(original))
    assert torch.allclose(converted.norm.bias, original.norm.bias + 3 * shift)
    assert [fit.errors for fit in fits] == [fit.errors for fit in same]
    assert all(fit.healed is None for fit in fits)
    weights = [derived_layers(each)[MEMBERS[0]]() for each in (converted, plain)]
    assert torch.equal(*weights)
    assert converted(images()).isfinite().all()


def test_healing_lowers_the_divergence_and_leaves_the_fits_alone() -> None:
    torch.manual_seed(0)
    original = net().eval()
    conversions = []
    for progressive in (None, 10):
        options: dict[str, Any] = {"fit": {"sweeps": 3, "progressive": progressive}}
        recipe = Recipe(scheme="lowrank", calibration={"images": 30, "heldout": 20}, **options)
        conversions.append(
            kdna_convert.convert(copy.deepcopy(original), recipe=recipe, data=noise(60), target_params=0.5)
        )
    plain, healed = (one.report for one in conversions)
    assert healed.divergence.kl < plain.divergence.kl
    assert all(one.healed is None for one in plain.families)
    assert all(one.healed is not None for one in healed.families)
    assert min(one.healed for one in healed.families) < plain.divergence.kl
    assert [one.errors for one in healed.families] == [one.errors for one in plain.families]


def test_a_call_is_reproducible_to_the_bit_and_leaves_the_callers_net_alone() -> None:
    torch.manual_seed(0)
    original = net()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    options: dict[str, Any] = {"fit": {"sweeps": 3, "progressive": 2}, "calibration": {"images": 30, "heldout": 20}}
    once, again = (
        kdna_convert.convert(original, recipe=Recipe(scheme="cp", **options), data=noise(60), target_params=0.6).model
        for _ in range(2)
    )
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in once.state_dict().items())
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in before.items())


def test_held_out_images_are_not_trained_on() -> None:
    whole = as_images(noise(10))
    assert whole.without(whole.part([2, 5, 9])).positions == [0, 1, 3, 4, 6, 7, 8]


@pytest.mark.parametrize("given", [{"data": None}, {"data": noise(60), "data_free": True}], ids=["none", "data-free"])
def test_healing_without_images_is_refused(given: dict[str, Any]) -> None:
    recipe = Recipe(scheme="cp", fit={"progressive": 2})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"KD401: fit.progressive.*--data"):
        kdna_convert.convert(net(), recipe=recipe, target_params=0.6, **given)


def test_the_progressive_option_is_written_to_the_folders_recipe(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = kdna(*convert(images), "--progressive", "2", "-o", out)
    assert done.exit_code == 0, done.stderr
    assert "KL after the fine-tuning of each family: blocks.0.conv1 0." in done.stdout
    assert all(family["healed"] is not None for family in json.loads((out / "report.json").read_text())["families"])
    assert kdna_convert.load(out)
    assert kdna("verify", out).exit_code == 0
    assert "progressive" in (out / "recipe.yaml").read_text()
    assert kdna("convert", NET, "--target-params", "0.6", "--progressive", "2", "-o", tmp_path / "none").exit_code == 2
