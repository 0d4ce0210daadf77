"""The result of `kdna analyze`: the conclusion, each group with its families and heat map, then all layers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Parts
from rich.console import RenderableType
from rich.text import Text

from ...core.measurements import Analysis, Group, Matrix
from .figures import count, dimensions, grid, note, percent
from .heatmap import heatmap
from .layers import layer_count, layer_table

MEANINGS = {
    "explained": "share of one layer's output that the best basis of another layer explains, on the calibration images",
    "angles": "mean squared cosine of the principal angles between the row spaces of the kernels",
    "cka": "linear CKA of the outputs of the layers",
    "cosine": "cosine of the weights with matched channels",
}


def analysis_report(analysis: Analysis, plan: str) -> RenderableType:
    """What can share, and `plan`, the command to run next; then each group, then the layer table."""
    parts = [*conclusion(analysis), Text(f"next  {plan}")]
    for group in analysis.groups:
        parts += ["", group_report(group, analysis)]
    shown = list(dict.fromkeys(name for group in analysis.groups for name in group.similarities))
    legend = [note(f"{name}: {MEANINGS[name]}") for name in shown if name in MEANINGS]
    return Parts(*parts, *([""] if legend else []), *legend, "", layer_table(analysis.layers, analysis.params))


def conclusion(analysis: Analysis) -> list[RenderableType]:
    """How many layers can share, how many parameters they have, and how similar the layers of a family are."""
    members = [name for group in analysis.groups for name in group.members]
    params = sum(group.params for group in analysis.groups)
    head = f"{len(members)} of {layer_count(len(analysis.layers))} can share kernels: {count(params)} parameters"
    parts: list[RenderableType] = [Text(f"{head}{_share(params, analysis)}", style="bold")]
    if analysis.alone:
        names = ", ".join(analysis.alone)
        parts.append(f"{layer_count(len(analysis.alone))} can be converted but not shared: {names}")
    if not analysis.groups:
        return parts
    table = grid("kernels", ">layers", ">families", ">parameters", f">{analysis.metric} within families")
    for group in analysis.groups:
        families = [_members(group, label) for label in sorted(set(group.families))]
        within = _mean(group.similarities[analysis.metric], families)
        row = (_kernels(group, analysis), str(len(group.members)), str(len(families)), count(group.params), within)
        table.add_row(*row)
    return [*parts, "", table, ""]


def group_report(group: Group, analysis: Analysis) -> RenderableType:
    """One group: its size, its families with their mean similarities, and the map of the chosen measure."""
    heading = Text(f"{len(group.members)} layers with kernels {_kernels(group, analysis)}", style="bold")
    distinct = "" if group.silhouette is None else f", silhouette {group.silhouette:.2f}"
    families = len(set(group.families))
    count_of_families = "1 family" if families == 1 else f"{families} families"
    size = f"{count(group.params)} parameters{_share(group.params, analysis)}"
    grouping = f"{count_of_families} by {analysis.metric}{distinct}"
    order = sorted(range(len(group.members)), key=lambda member: (group.families[member], member))
    chosen = heatmap(group.members, group.similarities[analysis.metric], order)
    title = Text(analysis.metric, style="bold")
    return Parts(heading, size, grouping, "", _family_table(group), "", title, chosen)


def _share(params: int, analysis: Analysis) -> str:
    return f", {percent(params / analysis.params)} of the net" if analysis.params else ""


def _kernels(group: Group, analysis: Analysis) -> str:
    """The shapes of the group's kernels: `64×64×3×3, 128×64×3×3`."""
    kernels = {layer.name: dimensions(layer.shape) for layer in analysis.layers}
    return ", ".join(dict.fromkeys(kernels[name] for name in group.members))


def _family_table(group: Group) -> RenderableType:
    """One row per family: for each measure the mean over its pairs, and its members. The last row is over all pairs."""
    measures = list(group.similarities)
    table = grid("family", *(f">{name}" for name in measures), "members")
    labels = sorted(set(group.families))
    for label in labels:
        members = _members(group, label)
        names = ", ".join(group.members[member] for member in members)
        table.add_row(str(label + 1), *(_mean(group.similarities[name], [members]) for name in measures), names)
    if len(labels) > 1:
        everyone = range(len(group.members))
        table.add_row("all", *(_mean(group.similarities[name], [everyone]) for name in measures), "", style="dim")
    return table


def _members(group: Group, label: int) -> list[int]:
    return [member for member, own in enumerate(group.families) if own == label]


def _mean(matrix: Matrix, families: Sequence[Sequence[int]]) -> str:
    """The mean over the pairs of different members of one family, for all families together."""
    values = [matrix[i][j] for members in families for i in members for j in members if i != j]
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"
