"""Give the choices of a plan their times: of each layer dense, and as a chain at a few sizes.

The time of a converted net is that of the original, plus for each layer the difference between the time of its chain
and its own, both measured alone. What surrounds the layers cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.choices import BLOCK, Choice, Database, MemberLatency
from ...core.specs import Family, Progress, Shape
from ...network.chain import is_chain, is_chainable, own_class
from ...schemes import concrete, scheme_of
from ..analyze.targets import shapes_of
from .latency_file import Clock
from .layer_form import LayerForm, chain_form, dense_form, input_sizes

# The most sizes at which a chain is timed. Its time is nearly linear in the size.
SIZES = 7


def with_latencies(
    database: Database, model: nn.Module, example: Tensor, clock: Clock, progress: Progress | None = None
) -> Database:
    """The database with the time of the original and of every choice.

    Args:
        database: Of the net.
        model: The original in eval mode, on the CPU.
        example: The batch.
        clock: What times them.
        progress: Called before each family.
    """
    whole = clock.net(model, example, database.model.sha256)  # first, since it may be refused
    names = [name for choice in database.choices for name in choice.family.members]
    sizes = input_sizes(model, example, sorted({*names}))
    shapes = {layer.name: layer for layer in database.layers}
    routed = {name for route in database.routes for name in route.members}
    choices = []
    for done, choice in enumerate(database.choices):
        if progress is not None:
            progress(f"time: {choice.family.members[0]}", done, len(database.choices))
        own = [shapes[name] for name in choice.family.members]
        members = tuple(
            _member(choice, place, model.get_submodule(layer.name), sizes[layer.name], shapes_of(choice.family, own))
            if layer.name not in routed
            else ()
            for place, layer in enumerate(own)
        )
        choices.append(replace(choice, latency=tuple(_timed(forms, clock) for forms in members)))
    if progress is not None:
        progress("time", len(database.choices), len(database.choices))
    return replace(database, choices=tuple(choices), latency=whole, timed=clock.label)


_Forms = Sequence[tuple[LayerForm, dict[int, LayerForm]]]


def _member(choice: Choice, place: int, layer: Any, inputs: Sequence[Shape], shapes: Sequence[Shape]) -> _Forms:
    """For each call of a layer: its dense form, and its chains by their size; none for a layer without a chain."""
    if not is_chainable(layer):
        return ()
    sizes = [choice.fixed] if choice.fixed is not None else chain_sizes(choice.smallest, choice.limit)
    found = []
    for each in inputs:
        dense = dense_form(layer, each)
        chains = {size: chain_of(choice.family, choice.size, size, shapes, place, layer) for size in sizes}
        found.append((dense, {size: chain_form(dense, kernels) for size, kernels in chains.items() if kernels}))
    return found


def _timed(forms: _Forms, clock: Clock) -> MemberLatency:
    """The times of a layer, all of its calls together. Sizes well above the one where dense is faster are not timed."""
    if not forms or not forms[0][1]:
        return MemberLatency(0)
    dense = sum(clock.layer(own) for own, _ in forms)
    chains: dict[int, int] = {}
    slower = 0
    for size in sorted(forms[0][1]):
        chains[size] = max(sum(clock.layer(chain[size]) for _, chain in forms), *chains.values(), 0)
        slower = slower + 1 if chains[size] >= dense else 0
        if slower == 2:
            break
    return MemberLatency(dense, chains)


def chain_sizes(low: int, high: int) -> list[int]:
    """The sizes at which a chain is timed: full blocks, evenly from the smallest to the largest."""
    grid = {min(high, -(-int(size) // BLOCK) * BLOCK) for size in np.linspace(max(low, 1), high, SIZES)}
    return sorted(grid)


def chain_of(
    family: Family, option: str, size: int, shapes: Sequence[Shape], place: int, layer: nn.Module
) -> list[Tensor] | None:
    """The kernels of a member's chain, without values; None where the scheme or the layer has no chain."""
    scheme = scheme_of(family, **{option: size})
    layout = scheme.layout(shapes)
    with torch.device("meta"):
        shared, adapter = (
            {letter: torch.empty(concrete(shape, scheme)) for letter, shape in part.items()}
            for part in (layout.shared, layout.adapters[place])
        )
    kernels = scheme.factors(shared, adapter, shapes[place])
    return kernels if kernels and is_chain(own_class(layer), layer, kernels) else None
