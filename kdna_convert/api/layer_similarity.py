"""The similarity of a net's layers by its weights alone, as far as a page can wait for it."""

from __future__ import annotations

import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..core.errors import NumericsError
from ..core.measurements import Analysis
from ..core.specs import Layer, ModelRef, Plan
from ..schemes import make
from ..stages.analyze.groups import Clustering, analyze, group_layers

# Multiply-adds of all measures together, about two seconds on one core: enough for `explained` of a ResNet-50.
WORK = 140e9
# Why a recipe or a plan keeps a layer as it is. Its kernel can still be compared.
_COMPARED = frozenset({None, "KD101", "KD102", "KD109", "KD110", "KD114", "KD115"})


def weight_similarity(net: nn.Module, plan: Plan, whose: str) -> tuple[Analysis | None, str]:
    """The similarity of the layers of a plan that have equal input width and taps, without images.

    Every input direction counts alike, and nothing is clustered. Groups of wide layers, and measures, are left out
    where they would take long.

    Args:
        net: With the weights of these layers.
        plan: Its layers.
        whose: Whose weights they are, for the sentence.

    Returns:
        The analysis, None for weights that are not finite, and a sentence on how it was made.
    """
    compared = [replace(layer, reason=None) for layer in plan.layers if layer.reason in _COMPARED]
    groups = group_layers(compared, _key)
    kept, measures = _affordable(groups)
    names = {layer.name for members in kept.values() for layer in members}
    try:
        made = analyze(
            net,
            compared,
            {},
            group=lambda layer: _key(layer) if layer.name in names else None,
            clustering=Clustering(clusters=1),
            metrics=measures,
            dtype=torch.float32,
        )
    except NumericsError as error:
        return None, f"The layers were not compared: {error.message}."
    grouped = {layer.name for members in groups.values() for layer in members}
    alone = tuple(layer.name for layer in compared if layer.name not in grouped)
    analysis = replace(made, layers=plan.layers, alone=alone, params=plan.original.params)
    return analysis, _sentence(plan.model, whose, measures, {key: groups[key] for key in groups if key not in kept})


def _key(layer: Layer) -> Hashable:
    """Layers with equal keys can be compared: of one input width, and of as many taps."""
    return make("cp", {}).group(layer.shape), layer.groups


def _sentence(
    model: ModelRef, whose: str, measures: Sequence[str], left_out: Mapping[Hashable, Sequence[Layer]]
) -> str:
    what = f"Compared by the weights of {whose} alone, all inputs counting alike: a page is made without images."
    missing = [name for name in ("angles", "cosine") if name not in measures]
    if left_out:
        missing.append(f"{sum(map(len, left_out.values()))} layers with large kernels")
    if missing:
        what = f"{what} Left out, since it would take long: {', '.join(missing)}."
    checkpoint = ["--checkpoint", model.checkpoint] if model.checkpoint else []
    command = shlex.join(["kdna", "analyze", model.name, *checkpoint, "--data", "DATA", "--html", "FILE"])
    return f"{what} `{command}` compares all layers by all measures, on images."


def _affordable(
    groups: Mapping[Hashable, Sequence[Layer]],
) -> tuple[dict[Hashable, Sequence[Layer]], tuple[str, ...]]:
    """The groups, those of least work first, and then the measures, that take at most WORK."""
    spent, small = 0.0, set()
    for key in sorted(groups, key=lambda key: _explained(groups[key])):
        spent += _explained(groups[key])
        if spent > WORK:
            break
        small.add(key)
    kept = {key: members for key, members in groups.items() if key in small}
    measures = ["explained"]
    for name, cost in (("angles", _angles), ("cosine", _cosine)):
        spent += sum(map(cost, kept.values()))
        if spent <= WORK:
            measures.append(name)
    return kept, tuple(measures)


def _bases(members: Sequence[Layer]) -> float:
    """Multiply-adds of the best basis of each layer: a QR or a product, and an eigenvalue decomposition."""
    sides = [min(layer.out_channels, layer.patch) for layer in members]
    return sum(3 * layer.params * side + 12 * side**3 for layer, side in zip(members, sides, strict=True))


def _explained(members: Sequence[Layer]) -> float:
    sides = [min(layer.out_channels, layer.patch) for layer in members]
    return _bases(members) + 0.75 * members[0].patch * sum(sides) ** 2


def _angles(members: Sequence[Layer]) -> float:
    sides = [min(layer.out_channels, layer.patch) for layer in members]
    return _bases(members) + 0.25 * members[0].patch * sum(sides) ** 2


def _cosine(members: Sequence[Layer]) -> float:
    """The products of all pairs of one shape, and their matchings."""
    alike = group_layers(members, lambda layer: layer.shape, at_least=1).values()
    sizes = [(len(part) ** 2 / 2, part[0].out_channels, part[0].params) for part in alike]
    return sum(pairs * (out * params + 6 * out**3) for pairs, out, params in sizes)
