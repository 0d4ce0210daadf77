"""The result of `kdna profile`."""

from __future__ import annotations

from rich.console import Group, RenderableType

from ...core.amounts import dimensions, milliseconds, percent
from ...core.measurements import ChainTimes, LayerTimes, Profile
from .figures import grid, note

NOTE = (
    "int8, and each scheme as a chain of layers with half of the MACs: how many times as fast as the dense layer. "
    "--json has all times."
)
HALF = 0.5
# Layers that alone take so much longer than the net say little about it.
BEYOND = 1.5
SMALL = (
    "The layers alone take longer than the net, since each loads and stores what neighbours share. Plans for a latency "
    "are unreliable for so small a net."
)


def profile_table(profile: Profile) -> RenderableType:
    """One row for each shape of layer, and the sum beside the time of the net."""
    names = list(dict.fromkeys(chain.scheme for row in profile.rows for chain in row.chains))
    table = grid("layers", "kernel", "input", ">×", ">ms", ">of net", ">int8", *(f">{name}" for name in names))
    for row in profile.rows:
        own = (dimensions(row.shape), dimensions(row.input[2:] or row.input), str(row.calls), f"{row.dense / 1e6:.3f}")
        int8 = "-" if row.int8 is None else f"{row.dense / row.int8:.1f}×"
        chains = {chain.scheme: _at_half(chain, row) for chain in row.chains}
        share = percent(row.calls * row.dense / profile.net)
        table.add_row(row.layers[0], *own, share, int8, *(chains.get(name, "-") for name in names))
    whole = sum(row.calls * row.dense for row in profile.rows)
    about = (
        f"the net: {milliseconds(profile.net)} for a batch of {profile.batch} ({profile.timed}); "
        f"its layers alone: {milliseconds(whole)}"
    )
    small = [note(SMALL)] if whole > BEYOND * profile.net else []
    return Group(table, "", about, *small, note(NOTE))


def _at_half(chain: ChainTimes, row: LayerTimes) -> str:
    """The speed-up of the chain with half of the multiply-adds, interpolated; - where the timed ones have less."""
    if max(chain.macs.values()) < HALF:
        return "-"
    sizes = sorted(chain.macs)
    above = next(size for size in sizes if chain.macs[size] >= HALF)
    below = max((size for size in sizes if chain.macs[size] < HALF), default=above)
    way = (HALF - chain.macs[below]) / (chain.macs[above] - chain.macs[below]) if below != above else 0.0
    time = chain.times[below] + way * (chain.times[above] - chain.times[below])
    return f"{row.dense / time:.1f}×"
