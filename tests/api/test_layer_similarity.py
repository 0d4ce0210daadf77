"""Laws of the similarity of layers by their weights: what is compared, what is left out, and that it is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.tiny import net_with_statistics, noise
from torch import nn

from kdna_convert.api.layer_pictures import kernel_pictures
from kdna_convert.api.layer_similarity import weight_similarity
from kdna_convert.core.specs import Layer, ModelRef, Plan, Totals
from kdna_convert.stages.analyze.groups import analyze
from kdna_convert.stages.analyze.survey import survey

SIZE = Totals(1000, 4000, 10_000)
BLOCKS = ("blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2")


def plan_of(net: nn.Module, reason: str | None = None) -> Plan:
    layers = tuple(replace(layer, reason=reason) for layer in survey(net, noise(1)))
    return Plan(ModelRef("my net.py:net", "weights.pth"), (), layers, SIZE, SIZE)


@pytest.mark.parametrize("reason", [None, "KD101", "KD115"])
def test_layers_of_equal_inputs_are_compared_though_a_recipe_keeps_them(reason: str | None) -> None:
    net = net_with_statistics()
    made, _ = weight_similarity(net, plan_of(net, reason), "the original")
    assert made is not None
    assert [group.members for group in made.groups] == [BLOCKS]
    assert {*made.alone} == {"stem", "fc"}
    assert {layer.reason for layer in made.layers} == {reason}


@pytest.mark.parametrize("reason", ["KD104", "KD106", "KD111", "KD120"])
def test_layers_whose_kernels_cannot_be_read_are_not_compared(reason: str) -> None:
    net = net_with_statistics()
    made, _ = weight_similarity(net, plan_of(net, reason), "the original")
    assert made is not None
    assert not made.groups


def test_the_values_are_those_of_an_analysis_without_moments() -> None:
    net = net_with_statistics()
    made, _ = weight_similarity(net, plan_of(net), "the original")
    exact = analyze(net, plan_of(net).layers, {}, group=lambda layer: layer.name in BLOCKS or None)
    assert made is not None
    assert [*made.groups[0].similarities] == ["explained", "angles", "cosine"]
    for name, matrix in made.groups[0].similarities.items():
        values, others = (
            torch.tensor(one, dtype=torch.float64) for one in (matrix, exact.groups[0].similarities[name])
        )
        torch.testing.assert_close(values, others, atol=1e-4, rtol=0)


def test_the_sentence_says_whose_weights_were_compared_and_the_command_for_more() -> None:
    net = net_with_statistics()
    _, said = weight_similarity(net, plan_of(net), "the converted net")
    assert "the weights of the converted net alone" in said
    assert "`kdna analyze 'my net.py:net' --checkpoint weights.pth --data DATA --html FILE`" in said
    assert "Left out" not in said


def test_what_would_take_long_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_with_statistics()
    monkeypatch.setattr("kdna_convert.api.layer_similarity.WORK", 5e5)
    made, said = weight_similarity(net, plan_of(net), "the original")
    assert made is not None
    assert [*made.groups[0].similarities] == ["explained"]
    assert "Left out, since it would take long: angles, cosine." in said
    monkeypatch.setattr("kdna_convert.api.layer_similarity.WORK", 1.0)
    made, said = weight_similarity(net, plan_of(net), "the original")
    assert made is not None
    assert not made.groups
    assert {*made.alone} == {"stem", "fc"}
    assert "4 layers with large kernels" in said


def test_weights_that_are_not_finite_are_a_sentence_that_names_the_layer() -> None:
    net = net_with_statistics()
    with torch.no_grad():
        net.blocks[1].conv2.weight[0, 0] = torch.nan
    made, said = weight_similarity(net, plan_of(net), "the original")
    assert made is None
    assert said == "The layers were not compared: blocks.1.conv2: the weight holds NaN or infinity."


def test_pictures_of_layers_take_no_more_than_their_share_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_with_statistics()
    made, _ = weight_similarity(net, plan_of(net), "the original")
    assert made is not None
    whole = kernel_pictures(net, made)
    assert {*whole} == {*BLOCKS}
    monkeypatch.setattr("kdna_convert.api.layer_pictures.BYTES", 2 * len(whole[BLOCKS[0]].uri) + 100)
    assert [*kernel_pictures(net, made)] == [*BLOCKS[:2]]


def test_layers_in_groups_are_compared_with_those_of_as_many_groups() -> None:
    net = nn.Sequential(
        nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 4, 3)
    )
    layers = tuple(
        Layer(str(place), "Conv2d", tuple(each.weight.shape), each.groups)  # type: ignore[arg-type]
        for place, each in enumerate(net)
    )
    made, _ = weight_similarity(net, Plan(ModelRef("net"), (), layers, SIZE, SIZE), "the original")
    assert made is not None
    assert [group.members for group in made.groups] == [("0", "1")]
    assert made.alone == ("2", "3")
