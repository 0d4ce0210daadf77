"""How fast the nets are: the median time of a batch, with its spread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...core.amounts import count, short, size
from ...stages.evaluate.timing import Timing
from ..chart import MUTED, SERIES, TIP, chart, drawn_text
from ..material import Material
from ..part import Column, Part, filled, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


SENTENCE = (
    "The time of a batch, lower is better. Folded, a net computes what the original does. Converted, it derives its "
    "kernels in each pass, too. Factored, it runs chains of smaller layers."
)


def bench(material: Material) -> Part | None:
    """The chart and the table of `kdna bench`."""
    rows = material.timings
    if not rows:
        return None
    tips = {
        f"{TIP}time-{place}": f"{row.name}: {row.ms:.2f} ms, spread {row.spread_ms:.2f} ms"
        for place, row in enumerate(rows)
    }
    drawn = chart(partial(_draw, rows), "milliseconds of each net", tips, (7, 0.9 + 0.35 * len(rows)))
    first = rows[0]
    note = f"{first.device}, batch {first.batch}: the median of {first.rounds} rounds, in which the nets take turns."
    note = f"{note} The line is the interquartile range."
    columns = [
        Column("net"),
        *(Column(name, True) for name in ("parameters", "bytes", "MACs", "ms", "spread", "images/s", "ratio")),
    ]
    cells = [
        (
            row.name,
            count(row.params),
            size(row.bytes),
            short(row.macs),
            f"{row.ms:.2f}",
            f"{row.spread_ms:.2f}",
            short(row.throughput),
            f"{row.ratio:.3f}",
        )
        for row in rows
    ]
    body = filled("figures.html", figures=[(note, drawn)]) + table(columns, cells, f"The nets; ratio: to {first.name}")
    return Part("bench", "How fast it is", SENTENCE, body)


def _draw(rows: Sequence[Timing], axes: Axes) -> None:
    for place, row in enumerate(rows):
        axes.barh([place], [row.ms], color=SERIES[0], height=0.6, gid=f"{TIP}time-{place}")
        axes.plot([row.ms - row.spread_ms / 2, row.ms + row.spread_ms / 2], [place, place], color=MUTED, lw=3)
    axes.set_yticks(range(len(rows)), [drawn_text(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("ms")
