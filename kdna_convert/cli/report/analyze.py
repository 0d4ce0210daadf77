"""What `kdna analyze` found: the layers, then each group that could share, its families and its heat map."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Parts
from rich.console import RenderableType
from rich.text import Text

from ...core.specs import Analysis, Group, Matrix
from .figures import count, dimensions, grid, note, percent
from .heatmap import heatmap
from .layers import layer_table

MEANINGS = {
    "explained": "share of one layer's output that the other's best basis explains, on the calibration images",
    "angles": "principal angles between the kernels' row spaces, mean squared cosine",
    "cka": "linear CKA of the layers' outputs",
    "cosine": "cosine of the weights, channels matched",
}


def analysis_report(analysis: Analysis) -> RenderableType:
    parts: list[RenderableType] = [layer_table(analysis.layers, analysis.params)]
    for group in analysis.groups:
        parts += ["", group_report(group, analysis)]
    if analysis.alone:
        parts += ["", f"{len(analysis.alone)} can be converted but share with no other: {', '.join(analysis.alone)}"]
    shown = list(dict.fromkeys(name for group in analysis.groups for name in group.similarities))
    legend = [note(f"{name}: {MEANINGS[name]}") for name in shown if name in MEANINGS]
    return Parts(*parts, *([""] if legend else []), *legend)


def group_report(group: Group, analysis: Analysis) -> RenderableType:
    """One group: how much is at stake, its families with their mean similarities, and the map of the chosen measure."""
    share = f", {percent(group.params / analysis.params)} of the net's" if analysis.params else ""
    kernels = {layer.name: dimensions(layer.shape) for layer in analysis.layers}
    shapes = ", ".join(dict.fromkeys(kernels[name] for name in group.members))
    heading = Text(f"{len(group.members)} layers that could share, kernels {shapes}", style="bold")
    distinct = "" if group.silhouette is None else f"; silhouette {group.silhouette:.2f}"
    stake = (
        f"{count(group.params)} parameters{share}; {len(set(group.families))} families by {analysis.metric}{distinct}"
    )
    order = sorted(range(len(group.members)), key=lambda member: (group.families[member], member))
    chosen = heatmap(group.members, group.similarities[analysis.metric], order)
    return Parts(heading, stake, "", _family_table(group), "", Text(analysis.metric, style="bold"), chosen)


def _family_table(group: Group) -> RenderableType:
    """A row a family: its members and, for each measure, the mean over its pairs; the last row is over all pairs."""
    measures = list(group.similarities)
    table = grid("family", *(f">{name}" for name in measures), "members")
    families = {label: [i for i, own in enumerate(group.families) if own == label] for label in group.families}
    for label, members in sorted(families.items()):
        names = ", ".join(group.members[member] for member in members)
        table.add_row(str(label + 1), *(_mean(group.similarities[name], members) for name in measures), names)
    if len(families) > 1:
        everyone = range(len(group.members))
        table.add_row("all", *(_mean(group.similarities[name], everyone) for name in measures), "", style="dim")
    return table


def _mean(matrix: Matrix, members: Sequence[int]) -> str:
    values = [matrix[i][j] for i in members for j in members if i != j]
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"
