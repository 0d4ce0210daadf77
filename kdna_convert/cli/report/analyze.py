"""The result of `kdna analyze`: the conclusion, each group with its clusters and heat map, then all layers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Parts
from rich.console import RenderableType
from rich.text import Text

from ...core.amounts import count, dimensions, percent
from ...core.measurements import Analysis, Group, Matrix
from .figures import grid, note
from .heatmap import heatmap
from .layers import layer_count, layer_table

MEANINGS = {
    "explained": "share of one layer's output that the best basis of another layer explains, on the calibration images",
    "angles": "mean squared cosine of the principal angles between the row spaces of the kernels",
    "cka": "linear CKA of the outputs of the layers",
    "cosine": "cosine of the weights with matched channels",
}

CLUSTERS_NOTE = (
    "A conversion makes each group one family. With `families: {by: cluster}` in the recipe, it makes each cluster one."
)


def analysis_report(analysis: Analysis) -> RenderableType:
    """What can share; then each group, then the layer table."""
    parts = conclusion(analysis)
    for group in analysis.groups:
        parts += ["", group_report(group, analysis)]
    shown = list(dict.fromkeys(name for group in analysis.groups for name in group.similarities))
    legend = [note(f"{name}: {MEANINGS[name]}") for name in shown if name in MEANINGS]
    return Parts(*parts, *([""] if legend else []), *legend, "", layer_table(analysis.layers, analysis.params))


def conclusion(analysis: Analysis) -> list[RenderableType]:
    """How many layers can share, how many parameters they have, and how similar the layers of a cluster are."""
    members = [name for group in analysis.groups for name in group.members]
    params = sum(group.params for group in analysis.groups)
    head = f"{len(members)} of {layer_count(len(analysis.layers))} can share kernels: {count(params)} parameters"
    parts: list[RenderableType] = [Text(f"{head}{_share(params, analysis)}", style="bold")]
    if analysis.alone:
        names = ", ".join(analysis.alone)
        parts.append(f"{layer_count(len(analysis.alone))} can be converted but not shared: {names}")
    if not analysis.groups:
        return parts
    table = grid("kernels", ">layers", ">clusters", ">parameters", f">{analysis.metric} within clusters")
    for group in analysis.groups:
        clusters = [_members(group, label) for label in sorted(set(group.clusters))]
        within = _mean(group.similarities[analysis.metric], clusters)
        row = (_kernels(group, analysis), str(len(group.members)), str(len(clusters)), count(group.params), within)
        table.add_row(*row)
    return [*parts, "", table, note(CLUSTERS_NOTE)]


def group_report(group: Group, analysis: Analysis) -> RenderableType:
    """One group: its size, its clusters with their mean similarities, and the map of the chosen measure."""
    heading = Text(f"{len(group.members)} layers with kernels {_kernels(group, analysis)}", style="bold")
    distinct = "" if group.silhouette is None else f", silhouette {group.silhouette:.2f}"
    clusters = len(set(group.clusters))
    count_of_clusters = "1 cluster" if clusters == 1 else f"{clusters} clusters"
    size = f"{count(group.params)} parameters{_share(group.params, analysis)}"
    grouping = f"{count_of_clusters} by {analysis.metric}{distinct}"
    order = sorted(range(len(group.members)), key=lambda member: (group.clusters[member], member))
    chosen = heatmap(group.members, group.similarities[analysis.metric], order)
    title = Text(analysis.metric, style="bold")
    return Parts(heading, size, grouping, "", _cluster_table(group), "", title, chosen)


def _share(params: int, analysis: Analysis) -> str:
    return f", {percent(params / analysis.params)} of the net" if analysis.params else ""


def _kernels(group: Group, analysis: Analysis) -> str:
    """The shapes of the group's kernels: `64×64×3×3, 128×64×3×3`."""
    kernels = {layer.name: dimensions(layer.shape) for layer in analysis.layers}
    return ", ".join(dict.fromkeys(kernels[name] for name in group.members))


def _cluster_table(group: Group) -> RenderableType:
    """One row per cluster: its mean over pairs by each measure, and its members. The last row is over all pairs."""
    measures = list(group.similarities)
    table = grid("cluster", *(f">{name}" for name in measures), "members")
    labels = sorted(set(group.clusters))
    for label in labels:
        members = _members(group, label)
        names = ", ".join(group.members[member] for member in members)
        table.add_row(str(label + 1), *(_mean(group.similarities[name], [members]) for name in measures), names)
    if len(labels) > 1:
        everyone = range(len(group.members))
        table.add_row("all", *(_mean(group.similarities[name], [everyone]) for name in measures), "", style="dim")
    return table


def _members(group: Group, label: int) -> list[int]:
    return [member for member, own in enumerate(group.clusters) if own == label]


def _mean(matrix: Matrix, clusters: Sequence[Sequence[int]]) -> str:
    """The mean over the pairs of different members of one cluster, for all clusters together."""
    values = [matrix[i][j] for members in clusters for i in members for j in members if i != j]
    defined = [value for value in values if value is not None]
    return f"{sum(defined) / len(defined):.2f}" if defined else "-"
