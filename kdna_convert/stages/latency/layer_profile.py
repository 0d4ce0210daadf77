"""The times of the layers of a net by their shape: dense, in 8 bits, and as chains of several schemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...core.measurements import ChainTimes, LayerTimes, Profile
from ...core.specs import Family, Layer, Progress
from ...network.chain import is_chainable
from ...schemes import SCHEMES, scheme_of
from .latencies import chain_of, chain_sizes
from .latency_file import Clock
from .layer_form import LayerForm, chain_form, dense_form, input_sizes


@dataclass
class _Alike:
    """Layers of one form."""

    layer: Layer
    form: LayerForm
    names: list[str] = field(default_factory=list)
    calls: int = 0


def profile_layers(
    model: nn.Module,
    layers: Sequence[Layer],
    example: Tensor,
    clock: Clock,
    schemes: Sequence[str],
    name: str,
    progress: Progress | None = None,
) -> Profile:
    """Time a net and its layers.

    Args:
        model: The net in eval mode, on the CPU.
        layers: Its surveyed layers. Transposed convolutions, and layers that the survey cannot read, are left out.
        example: The batch.
        clock: What times them.
        schemes: The names of the schemes whose chains are timed.
        name: The digest of the net's weights.
        progress: Called before each group of equal layers.
    """
    whole = clock.net(model, example, name)  # first, since it may be refused
    readable = [layer for layer in layers if _is_timed(model, layer)]
    sizes = input_sizes(model, example, [layer.name for layer in readable])
    groups: dict[LayerForm, _Alike] = {}
    for layer in readable:
        for size in sizes[layer.name]:
            form = dense_form(model.get_submodule(layer.name), size)
            alike = groups.setdefault(form, _Alike(layer, form))
            alike.names += [layer.name] if layer.name not in alike.names else []
            alike.calls += 1
    rows = []
    for done, alike in enumerate(groups.values()):
        if progress is not None:
            progress(f"time: {alike.names[0]}", done, len(groups))
        rows.append(_row(model.get_submodule(alike.names[0]), alike, clock, schemes))
    if progress is not None:
        progress("time", len(groups), len(groups))
    return Profile(clock.label, len(example), whole, str(clock.file), tuple(rows))


def _is_timed(model: nn.Module, layer: Layer) -> bool:
    """Whether a layer is a convolution or linear layer of the net's own modules."""
    module = dict(model.named_modules()).get(layer.name)
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)) and layer.reason not in ("KD111", "KD112")


def _row(module: nn.Module, alike: _Alike, clock: Clock, schemes: Sequence[str]) -> LayerTimes:
    form, dense = alike.form, clock.layer(alike.form)
    int8 = clock.layer(form, "int8") if "int8" in clock.runtime.dtypes else None
    found = [_chains(module, alike, clock, scheme, dense) for scheme in schemes] if is_chainable(module) else []
    return LayerTimes(
        tuple(alike.names),
        alike.calls,
        alike.layer.shape,
        alike.layer.stride,
        form.input,
        dense,
        int8,
        tuple(each for each in found if each is not None),
    )


def _chains(module: nn.Module, alike: _Alike, clock: Clock, name: str, dense: int) -> ChainTimes | None:
    """The times of one scheme's chains, up to the second size that is not faster than dense; None without a chain."""
    layer, scheme = alike.layer, SCHEMES[name]
    family = Family(name, (layer.name,))
    times: dict[int, int] = {}
    for size in chain_sizes(scheme.smallest, scheme_of(family).limit([layer.shape])):
        kernels = chain_of(family, scheme.size, size, [layer.shape], 0, module)
        if kernels is None:
            return None
        times[size] = clock.layer(chain_form(alike.form, kernels))
        if sum(time >= dense for time in times.values()) == 2:
            break
    cost = {size: scheme_of(family, **{scheme.size: size}) for size in times}
    macs = {size: own.macs(layer.shape, layer.in_positions, layer.out_positions) for size, own in cost.items()}
    shares = {size: round(count / max(layer.macs, 1), 4) for size, count in macs.items()}
    paying = [size for size, time in times.items() if time < dense]
    return ChainTimes(name, scheme.size, times, shares, max(paying, default=None))
