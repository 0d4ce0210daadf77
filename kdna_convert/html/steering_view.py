"""The page of `kdna explore`: its body, and what changes in it with the plan. No framework."""

from __future__ import annotations

from collections.abc import Container, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

from markupsafe import Markup

from ..core.amounts import count, kept, percent
from ..core.measurements import Curve
from ..core.shown import shown
from ..core.specs import Layer, Plan
from .part import Column, filled, pairs, table
from .parts.curve import budgets_of, figure
from .parts.layer_strip import legend_of, stage_of, strips_of

CHART = "KL divergence from the original, nats per image, by parameters kept. The band is the range of nets measured."
KEPT_DENSE = "You kept it dense."


def steering_page_of(
    title: str, sentence: str, notes: Sequence[str], kinds: Sequence[tuple[str, str]], layers: Sequence[Layer]
) -> Markup:
    """The body of the page, before anything is solved. `kinds` are the keys and names of the budgets."""
    strips = strips_of(layers, None)
    groups = [(stage, [*rows]) for stage, rows in groupby(strips, key=lambda one: stage_of(one.name, layers))]
    strip = filled("layers.html", groups=groups, legend=[], codes=[], table="")
    return filled("explore.html", title=title, sentence=sentence, notes=notes, kinds=kinds, strip=strip)


def style() -> str:
    """The style of pages, and what this one adds."""
    return _text("page.css") + _text("explore.css")


def script() -> str:
    """The script of pages, and that of this one. It runs once the body is there."""
    return _text("page.js") + _text("explore.js")


def drawn_layers(layers: Sequence[Layer], plan: Plan | None, dense: Container[str] = ()) -> list[list[Any]]:
    """Of each layer: the share that is kept, its color, its family, whether it is skipped, its facts, its label.

    Without a plan bars are empty, nothing is said to be kept, and no layer is in a family. `dense` are those that the
    user keeps dense.
    """
    drawn = []
    for one in strips_of(layers, plan):
        facts = [_told(name, value, one.name in dense) for name, value in one.facts]
        label = _label(one.name, facts)
        height = one.height if plan is not None or one.skipped else 0.0
        drawn.append([height, one.color, one.family, one.skipped, str(pairs(facts).unescape()), label])
    return drawn


def plain(text: str) -> str:
    """Text without the marks of code, for places that show them as they are."""
    return text.replace("`", "")


def _told(name: str, value: str, dense: bool) -> tuple[str, str]:
    """A fact of a layer. Of a layer that the user keeps dense, no other reason is given."""
    if name != "skipped" or not value:
        return name, value
    return ("changed", KEPT_DENSE) if dense else (name, plain(value))


def families_of(plan: Plan) -> Markup:
    """The families of a plan as a table."""
    layers, whole = {layer.name: layer.params for layer in plan.layers}, sum(plan.predicted.values())
    names = [name for _, name in legend_of(plan)]
    rows = []
    for name, family in zip(names, plan.families, strict=True):
        owner, before = family.members[0], sum(layers[member] for member in family.members)
        options = ", ".join(f"{key} {value}" for key, value in family.options.items() if value is not None)
        after, error = plan.stored[owner], plan.predicted.get(owner)
        share = "-" if error is None or not whole else percent(error / whole)
        rows.append((name, options, count(before), count(after), kept(after, before), share))
    columns = [
        Column("family"),
        Column("options"),
        *(Column(each, number=True) for each in ("before", "after", "kept", "error")),
    ]
    return table(columns, rows, "Parameters of each family, and its share of the predicted error")


def legend_html(plan: Plan) -> Markup:
    """The colors of the families."""
    return filled("legend.html", legend=legend_of(plan))


def curve_html(curve: Curve, repaired: bool, chosen: tuple[float, float] | None) -> Markup:
    """The expected KL divergence at other sizes. `chosen` is (share of the parameters, KL divergence) of the plan."""
    drawn = figure(budgets_of(curve, repaired), (), chosen, "this plan", "expected")
    return filled("figures.html", figures=[(CHART, drawn)])


def _label(name: str, facts: Sequence[tuple[str, str]]) -> str:
    return shown(", ".join([name, *(f"{key} {value}" for key, value in facts if value not in ("", "-"))]))


def _text(name: str) -> str:
    return files(__package__).joinpath("templates").joinpath(name).read_text("utf-8")
