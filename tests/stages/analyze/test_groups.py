"""Laws of the analysis: groups of layers that can share, clusters of similar layers, and its JSON."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.core.errors import NumericsError, RecipeError
from kdna_convert.core.linalg import kronecker
from kdna_convert.core.measurements import Analysis
from kdna_convert.core.specs import Layer, from_json, to_json
from kdna_convert.stages.analyze.collect import collect
from kdna_convert.stages.analyze.groups import Clustering, analyze, group_layers
from kdna_convert.stages.analyze.similarity import METRICS
from kdna_convert.stages.analyze.survey import survey


class Twins(nn.Module):
    """Four 3x3 layers of one shape, two and two alike, a pointwise one and a stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(4))
        self.point, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 4)
        for index in (1, 3):
            noise = 0.02 * torch.randn(6, 6, 3, 3)
            self.body[index].weight.data = self.body[index - 1].weight.data + noise

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for conv in self.body:
            x = x + conv(x).relu()
        return self.head(self.point(x).mean((2, 3)))


@pytest.fixture
def twins() -> Twins:
    torch.manual_seed(0)
    return Twins().eval()


def by_patch(layer: Layer) -> int | None:
    return None if layer.kind == "Linear" else layer.patch


def analysis_of(model: nn.Module, metrics: Sequence[str] = tuple(METRICS), **options: Any) -> Analysis:
    batches = list(torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1)).split(16))
    layers = survey(model, batches[0])
    moments = collect(model, layers, batches)
    return analyze(model, layers, moments, group=by_patch, clustering=Clustering(**options), metrics=metrics)


def test_long_patches_are_compared_under_the_kronecker_form_of_their_moments(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = survey(twins, torch.randn(1, 3, 8, 8))
    moments = collect(twins, layers, [torch.randn(16, 3, 8, 8)])

    def similarities() -> Any:
        return analyze(twins, layers, moments, group=by_patch).groups[0].similarities["explained"]

    exact = similarities()
    monkeypatch.setattr("kdna_convert.stages.analyze.groups.FULL_METRIC_PATCH", 53)  # of 54 numbers each
    short = similarities()
    for name in (f"body.{index}" for index in range(4)):
        moments[name] = replace(moments[name], packed=kronecker(moments[name].second, 6))
    monkeypatch.undo()
    assert short != exact
    assert torch.allclose(torch.tensor(short), torch.tensor(similarities()), atol=1e-4)


@pytest.mark.parametrize("metric", ["explained", "angles", "cosine"])
def test_layers_that_are_alike_become_clusters(twins: Twins, metric: str) -> None:
    (group,) = analysis_of(twins, metric=metric).groups
    assert group.members == ("body.0", "body.1", "body.2", "body.3")
    assert group.clusters == (0, 0, 1, 1)
    assert group.silhouette is not None
    assert group.silhouette > 0.3
    assert group.params == 4 * 6 * 6 * 9


def test_an_analysis_has_every_measure_and_names_the_deciding_one(twins: Twins) -> None:
    analysis = analysis_of(twins, metric="cka")
    assert analysis.metric == "cka"
    assert list(analysis.groups[0].similarities) == ["explained", "angles", "cka", "cosine"]
    assert list(analysis_of(twins, metrics=("angles",)).groups[0].similarities) == ["angles", "explained"]


def test_layers_without_a_group_are_listed_as_alone(twins: Twins) -> None:
    analysis = analysis_of(twins)
    assert analysis.alone == ("stem", "point", "head")
    assert len(analysis.layers) == 7
    assert analysis.params == sum(p.numel() for p in twins.parameters())


def test_an_analysis_survives_json_with_undefined_values_as_null(twins: Twins) -> None:
    layers = survey(twins, torch.randn(1, 3, 8, 8))
    analysis = analyze(twins, layers, {}, group=lambda layer: layer.in_channels if layer.taps > 0 else None)
    assert from_json(Analysis, to_json(analysis)) == analysis
    data = json.loads(to_json(analysis))
    assert data["groups"][0]["similarities"]["cka"][0][0] is None


def test_without_moments_layers_are_compared_by_their_weights(twins: Twins) -> None:
    layers = survey(twins, torch.randn(1, 3, 8, 8))
    (group,) = analyze(twins, layers, {}, group=by_patch).groups
    assert group.clusters == (0, 0, 1, 1)


def test_threshold_and_count_apply_to_every_group(twins: Twins) -> None:
    assert analysis_of(twins, clusters=1).groups[0].clusters == (0, 0, 0, 0)
    assert analysis_of(twins, clusters=99).groups[0].clusters == (0, 1, 2, 3)
    assert analysis_of(twins, threshold=0.0).groups[0].clusters == (0, 0, 0, 0)


def test_an_analysis_is_the_same_twice(twins: Twins) -> None:
    assert analysis_of(twins) == analysis_of(twins)


def test_groups_are_sorted_by_their_parameters_and_reported() -> None:
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(2)), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)))
    calls: list[tuple[str, int, int]] = []
    layers = survey(model, torch.randn(1, 4, 5, 5))
    progress = lambda *step: calls.append(step)  # noqa: E731
    analysis = analyze(model, layers, {}, group=lambda layer: layer.patch, progress=progress)
    assert [group.key for group in analysis.groups] == ["36", "4"]
    assert calls == [("compare: 2 layers", 1, 2), ("compare: 2 layers", 2, 2)]


def test_layers_with_a_reason_or_without_a_key_are_not_grouped() -> None:
    rows = [Layer(name, "Conv2d", (4, 4, 1, 1)) for name in "abc"]
    excluded = Layer("d", "Conv2d", (4, 4, 1, 1), reason="KD101")
    groups = group_layers([*rows, excluded], lambda layer: None if layer.name == "c" else 1)
    assert {key: [layer.name for layer in members] for key, members in groups.items()} == {1: ["a", "b"]}


def test_a_sick_weight_is_named(twins: Twins) -> None:
    layers = survey(twins, torch.randn(1, 3, 8, 8))
    twins.body[2].weight.data[0, 0, 0, 0] = float("inf")
    with pytest.raises(NumericsError, match=r"KD701: body\.2"):
        analyze(twins, layers, {}, group=by_patch)


def test_an_unknown_measure_and_threshold_with_count_are_refused(twins: Twins) -> None:
    with pytest.raises(RecipeError, match=r"KD203: metric: must be one of explained, .* got 'likeness'"):
        analysis_of(twins, metric="likeness")
    with pytest.raises(RecipeError, match="not both"):
        analysis_of(twins, threshold=0.5, clusters=2)
