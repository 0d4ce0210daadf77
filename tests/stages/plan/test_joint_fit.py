"""A family without a finite fit: the plan goes on without it, and the error of a fit names its layers."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.small_nets import images, small

from kdna_convert.core.choices import Database
from kdna_convert.core.errors import NumericsError
from kdna_convert.core.linalg import Kronecker
from kdna_convert.core.specs import Family, ModelRef
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.analyze.collect import collect
from kdna_convert.stages.analyze.moments import LayerMoments, packed
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.plan.database import SurveyedNet, build_database

pytestmark = pytest.mark.usefixtures("quick_predictions")

FAMILIES = (Family("basis", ("body.0", "body.2")), Family("lowrank", ("last",)))


def database(sick: Mapping[str, Mapping[str, Any]]) -> Database:
    net = small()
    layers = survey(net, images())
    moments = collect(net, layers, [images(8)])
    moments |= {name: replace(moments[name], **changed) for name, changed in sick.items()}
    return build_database(SurveyedNet(net, ModelRef("small"), layers, 1), FAMILIES, Recipe(scheme="basis"), moments)


def overflowing() -> dict[str, Any]:
    return {"gradient": torch.full((6,), math.inf)}


def test_a_family_without_a_finite_fit_stays_dense_with_a_reason_and_the_others_are_planned() -> None:
    found = database({"last": overflowing()})
    assert [choice.family.members for choice in found.choices] == [("body.0", "body.2")]
    assert all(math.isfinite(error) for choice in found.choices for error in choice.points.values())
    assert {layer.name: layer.reason for layer in found.layers if layer.reason} == {"last": "KD130"}


def test_a_net_whose_families_all_have_no_finite_fit_is_refused_by_name() -> None:
    with pytest.raises(NumericsError, match=r"KD703: family of body\.0 and 1 more: .* body\.2 is not finite"):
        database({"last": overflowing(), "body.2": overflowing()})


def test_a_failure_of_lapack_is_a_fit_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(*_: object, **__: object) -> Any:
        return torch.linalg.cholesky(-torch.eye(2))

    monkeypatch.setattr(SCHEMES["lowrank"], "share", share)
    assert {layer.reason for layer in database({}).layers if layer.name == "last"} == {"KD130"}


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "kerneldna"])
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1e-15, 1e-19, 1e-22, 1e8])
def test_activations_of_any_size_have_a_finite_fit(scheme: str, scale: float) -> None:
    net = small()
    layers = survey(net, images())
    moments = collect(net, layers, [images(8)])
    moments = {name: replace(own, packed=packed(_scaled(own, scale))) for name, own in moments.items()}
    families = (Family(scheme, ("body.0",), {"cell": 2} if scheme == "warehouse" else {}),)
    surveyed = SurveyedNet(net, ModelRef("small"), layers, 1)
    (choice,) = build_database(surveyed, families, Recipe(scheme=scheme), moments).choices
    assert all(math.isfinite(error) for error in choice.points.values())


def _scaled(moments: LayerMoments, scale: float) -> Any:
    """The moment of inputs that are scaled so, as float32 holds it."""
    second = moments.second
    if isinstance(second, Kronecker):
        return Kronecker(second.channels_cc * scale**2, second.taps_tt)
    return second * scale**2
