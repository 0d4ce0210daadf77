"""Which layers are alike: for each group of layers a map of their similarities, under the tree that clustered them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ...core.amounts import count, dimensions
from ...core.measurements import Analysis, Group, Matrix
from ...core.specs import Layer, Plan
from ..chart import MUTED, SERIES, chart
from ..material import Material
from ..part import Column, Part, filled, table
from ..picture import Picture
from ..pixels import Color, png_uri
from ..tree import Branch, Tree, tree_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEANINGS = {
    "explained": "share of the output of the column's layer that the best half of the row's kernel directions explains",
    "angles": "mean squared cosine of the principal angles between the spaces of the two kernels",
    "cka": "linear CKA of the outputs of the two layers on the same images",
    "cosine": "cosine of the two kernels, their filters matched to each other",
}
# The most layers whose names are beside the map.
NAMED = 40
# Values are drawn in so many steps: the place of a color is that of a value's step and 1, and 0 is undefined.
SHADES = 200
_HEIGHT = 1.1  # of the tree, in inches, where the map has 7


@dataclass(frozen=True)
class Shade:
    """The PNG of one measure, and the values up to and from which all cells have the first and the last color."""

    measure: str
    uri: str
    low: str
    high: str


@dataclass(frozen=True)
class Map:
    """A group as it is drawn: its layers as (name, kernel) from left to right; the first shade is of the tree.

    `prefix` is the length of what all names begin with, which the names beside the map leave out.
    """

    title: str
    note: str
    layers: Sequence[tuple[str, str]]
    pictures: Sequence[Picture | None]
    shades: Sequence[Shade]
    tree: Markup
    nearest: Markup
    named: bool
    prefix: int


def similarity(material: Material) -> Part | None:
    """A map for each group. None for a page of something else than layers."""
    title, analysis = "Which layers are alike", material.analysis
    if analysis is None:
        return None if material.compared is None else Part("similarity", title, material.compared)
    if not analysis.groups:
        why = "No two layers have kernels of equal input width and taps, which is what layers that share need."
        return Part("similarity", title, why)
    measures = [analysis.metric, *(name for name in analysis.groups[0].similarities if name != analysis.metric)]
    maps = [_map(group, measures, analysis, material) for group in analysis.groups]
    body = filled(
        "similarity.html",
        maps=maps,
        measures=[(name, MEANINGS.get(name, "")) for name in measures],
        legend=png_uri(np.arange(1, SHADES + 2, dtype=np.uint8)[None], palette(0.0, 1.0)),
        steps=SHADES,
        alone=analysis.alone,
    )
    return Part("similarity", title, _sentence(analysis, material), body)


@cache
def palette(low: float, high: float) -> tuple[Color, ...]:
    """The color of each value, in all colors from low to high. The first is never shown.

    They are those of cividis, which color-blind people see as others do.
    """
    import matplotlib as mpl

    places = ((np.linspace(0, 1, SHADES + 1) - low) / (high - low)).clip(0, 1)
    return (
        (0, 0, 0),
        *(tuple(color) for color in np.rint(255 * mpl.colormaps["cividis"](places)[:, :3]).astype(int).tolist()),
    )


def _sentence(analysis: Analysis, material: Material) -> str:
    members = sum(len(group.members) for group in analysis.groups)
    groups = "1 group" if len(analysis.groups) == 1 else f"{len(analysis.groups)} groups"
    what = f"How similar the kernels of {members} layers are, in {groups} that could share kernels"
    what = f"{what}: yellow is alike, blue is not. Layers that are alike meet low in the tree above a map"
    return f"{what}. {material.compared}" if material.compared else f"{what}."


def _map(group: Group, measures: Sequence[str], analysis: Analysis, material: Material) -> Map:
    shapes = {layer.name: _kernel(layer) for layer in analysis.layers}
    what, labels = _labels(group, material.plan)
    tree = tree_of(group.similarities[analysis.metric], analysis.linkage, labels)
    names = [group.members[place] for place in tree.order]
    title = f"{len(names)} layers with kernels {', '.join(dict.fromkeys(shapes[name] for name in group.members))}"
    return Map(
        title=title,
        note=_note(group, tree, analysis, what),
        layers=[(name, shapes[name]) for name in names],
        pictures=[material.kernels.get(name) for name in names],
        shades=[shade(name, group.similarities[name], tree.order) for name in measures],
        tree=_tree_chart(tree, analysis.metric, what) if len(names) > 2 else Markup(),
        nearest=_nearest(group, tree.order, what, labels, f"The most similar layer of each of the {title}"),
        named=len(names) <= NAMED,
        prefix=_shared_prefix(names),
    )


def _kernel(layer: Layer) -> str:
    return dimensions(layer.shape) + (f" in {layer.groups} groups" if layer.groups > 1 else "")


def _shared_prefix(names: Sequence[str]) -> int:
    """The length of the parts of a name, up to a dot, that all names begin with."""
    first, last = min(names), max(names)
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first.rfind(".", 0, same) + 1


def _labels(group: Group, plan: Plan | None) -> tuple[str, Sequence[int | None]]:
    """What the colors of a tree tell, family or cluster or nothing, and that of each member."""
    if plan is None:
        return "cluster", group.clusters
    families = {name: place for place, family in enumerate(plan.families) for name in family.members}
    return "family" if families else "", [families.get(name) for name in group.members]


def _note(group: Group, tree: Tree, analysis: Analysis, what: str) -> str:
    facts = [f"{count(group.params)} parameters"]
    if what == "cluster":
        clusters = len({*group.clusters})
        distinct = "" if group.silhouette is None else f" with a silhouette of {group.silhouette:.2f}"
        facts.append(f"{'1 cluster' if clusters == 1 else f'{clusters} clusters'} by {analysis.metric}{distinct}")
    if len(tree.order) > 2:
        heights = [branch.height for branch in tree.branches]
        colored = f", colored by {what}," if what else ""
        facts.append(
            f"branches{colored} meet at distances (1 - {analysis.metric}) from {min(heights):.2f} to "
            f"{max(heights):.2f}, {analysis.linkage} linkage"
        )
    return "; ".join(facts) + "."


def shade(name: str, matrix: Matrix, order: Sequence[int]) -> Shade:
    """A PNG of a pixel for each cell, rows and columns in this order. The colors are spread over pairs of layers."""
    values = np.array(matrix, dtype=np.float64)[np.ix_(order, order)]
    others = values[~np.eye(len(values), dtype=bool) & ~np.isnan(values)]
    low = min(0.9, np.floor(10 * others.min(initial=1.0)) / 10)
    high = max(low + 0.1, np.ceil(10 * others.max(initial=0.0)) / 10)
    steps = np.where(np.isnan(values), 0, 1 + np.rint(SHADES * values.clip(0, 1)))
    return Shade(name, png_uri(steps.astype(np.uint8), palette(low, high)), f"{low:.1f}", f"{high:.1f}")


def _tree_chart(tree: Tree, metric: str, what: str) -> Markup:
    colored = f", colored by {what}" if what else ""
    label = f"Tree of {len(tree.order)} layers{colored}. Branches meet at the height 1 - {metric}."
    return chart(partial(_draw, tree), label, size=(7, _HEIGHT))


def _draw(tree: Tree, axes: Axes) -> None:
    """Branches over the columns of the map, which has no margins."""
    axes.figure.set_layout_engine("none")  # type: ignore[union-attr]
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.5, len(tree.order) - 0.5)
    lowest, highest = (pick(branch.height for branch in tree.branches) for pick in (min, max))
    room = 0.25 * (highest - lowest)
    axes.set_ylim(max(0.0, lowest - room) if room else 0.0, highest + 0.1 * room or 1.0)
    for color, branches in groupby(sorted(tree.branches, key=_color), key=_color):
        places, heights = zip(*(point for branch in branches for point in _path(branch)), strict=True)
        axes.plot(places, heights, color=color, lw=1.2)


def _color(branch: Branch) -> str:
    return MUTED if branch.label is None else SERIES[branch.label % len(SERIES)]


def _path(branch: Branch) -> Iterator[tuple[float, float]]:
    """Up, across and down, and a gap."""
    (left, low), (right, other) = branch.left, branch.right
    yield from ((left, low), (left, branch.height), (right, branch.height), (right, other), (np.nan, np.nan))


def _nearest(group: Group, order: Sequence[int], what: str, labels: Sequence[int | None], caption: str) -> Markup:
    """A row for each layer: its cluster or family, and the other layer that is most like it by each measure."""
    columns = [Column("layer"), *([Column(what, True)] if what else [])]
    for name in group.similarities:
        columns += [Column(f"most alike by {name}"), Column(name, True)]
    numbers = [[] if not what else ["-" if label is None else count(label + 1)] for label in labels]
    rows = [(group.members[place], *numbers[place], *_best(group, place)) for place in order]
    return table(columns, rows, caption, folded=True)


def _best(group: Group, place: int) -> Iterator[str]:
    for matrix in group.similarities.values():
        others = [(value, other) for other, value in enumerate(matrix[place]) if other != place and value is not None]
        value, best = max(others, key=lambda one: one[0], default=(None, None))
        yield "-" if best is None else group.members[best]
        yield "-" if value is None else f"{value:.2f}"
