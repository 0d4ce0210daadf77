"""Where the answers changed: the original and the converted net on the user's inputs, by class and one by one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup

from ...core.amounts import count, measured, percent
from ...core.disagreement import Disagreement, Example
from ...core.measurements import MEASURES, Evaluation
from ...core.shown import shown
from ..chart import SERIES, TIP, chart
from ..class_tables import classes_table, confusions_table
from ..example_cards import cards, examples_table, seen
from ..material import Material
from ..part import Part, filled
from ..wording import measure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Where the answers changed"
# Points of the curve of distances.
POINTS = 300
SKIPPED = 5


def answers(material: Material) -> Part | None:
    """The disagreement of the two nets, or why it was not measured."""
    found = material.disagreement
    if found is None:
        return None if material.folder is None else Part("answers", TITLE, _absent(material.folder, material.missing))
    body = filled(
        "answers.html",
        facts=[*_facts(found)],
        classes=classes_table(found),
        confusions=confusions_table(found),
        chart=_distances(found),
        **_examples(found),
        notes=[*_notes(found)],
    )
    return Part("answers", TITLE, _sentence(found, material.original, material.converted), body)


def scores(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    """The measures with labels, that of the task first."""
    if evaluation.top1 is not None:
        yield "top1", evaluation.top1
    yield from ((name, value) for name, value in evaluation.measures.items() if name in MEASURES)


def _absent(folder: str, missing: str | None) -> str:
    if missing is not None:
        return f"The answers of the two nets were not compared: {missing}."
    return f"No images were given. To compare the answers of both nets: kdna report {shlex.quote(folder)} --data DATA"


def _sentence(found: Disagreement, before: Evaluation | None, after: Evaluation | None) -> str:
    inputs = f"{count(len(found.values))} {'input' if len(found.values) == 1 else 'inputs'}"
    if found.labeled and before is not None and after is not None:
        return f"On {inputs} with labels{_gain(before, after)}.{_changed(found)}"
    right = ", without labels: the original's answers count as right" if found.counts is not None else ""
    return f"Both nets on {inputs}{right}.{_changed(found)}"


def _gain(before: Evaluation, after: Evaluation) -> str:
    """The first measure of the task, before and after."""
    was, now = dict(scores(before)), dict(scores(after))
    name = next((name for name in was if name in now), None)
    if name is None:
        return ""
    return f": {MEASURES[name].title} {measured(name, was[name])} before and {measured(name, now[name])} after"


def _changed(found: Disagreement) -> str:
    counts, measure = found.counts, measure_of(found.task)
    if counts is None:
        worst = min(found.values) if measure.lowest else max(found.values)
        middle, far = measure.shown(median(found.values)), measure.shown(worst)
        ranked = measure.ranked[0].upper() + measure.ranked[1:]
        return f" {ranked}: {middle} in the middle, {far} where they are furthest apart."
    if found.task == "segment":
        return f" {percent(counts.changed / max(1, counts.answers), 2)} of the pixels have another answer."
    what = "yes-or-no answers" if found.task == "binary" else "inputs"
    share = f"{count(counts.changed)} of {count(counts.answers)} {what}"
    return f" On {share} the converted net gives another answer." if found.task == "classify" else f" {share} differ."


def _facts(found: Disagreement) -> Iterator[tuple[str, str]]:
    counts = found.counts
    if counts is None:
        return
    if counts.lost is None or counts.gained is None:
        yield "other answer", _amount(found, counts.changed)
    else:
        yield "right before, wrong now", _amount(found, counts.lost)
        yield "wrong before, right now", _amount(found, counts.gained)
        if found.task != "binary":
            yield "another wrong answer", _amount(found, counts.changed - counts.lost - counts.gained)


def _amount(found: Disagreement, number: int) -> str:
    share = percent(number / max(1, found.counts.answers if found.counts else 1), 2)
    return share if found.task == "segment" else f"{count(number)} ({share})"


def _examples(found: Disagreement) -> dict[str, object]:
    """The inputs on which the nets disagree most: as cards if any has a picture, else as a table."""
    measure, any_shown = measure_of(found.task), bool(found.examples) or found.typical is not None
    pictured = any_shown and seen(found)
    return {
        "ranking": f"Ranked by {measure.ranked}." if any_shown else "",
        "cards": cards(found) if pictured else (),
        "table": examples_table(found) if any_shown and not pictured else "",
        "measure": measure.title,
        "kind": found.task,
    }


def _distances(found: Disagreement) -> Markup:
    """The distances of all inputs in order, for tasks without classes."""
    measure = measure_of(found.task)
    if found.counts is not None or found.task == "detect" or len(found.values) < 2:
        return Markup()
    values = sorted(found.values)
    step = max(1, len(values) / POINTS)
    places = sorted({*(int(number * step) for number in range(int(len(values) / step))), len(values) - 1})
    tips = {
        f"{TIP}input-{number}": f"{shown(example.name)}: {measure.shown(example.value)}"
        for number, example in enumerate(found.examples)
    }
    draw = partial(_draw, values, places, found.examples, measure.title, measure.logarithmic)
    return chart(draw, f"{measure.ranked}, of each input", tips)


def _draw(
    values: list[float], places: list[int], examples: tuple[Example, ...], title: str, logarithmic: bool, axes: Axes
) -> None:
    least = min((value for value in values if value > 0), default=1.0)

    def height(value: float) -> float:
        return max(value, least) if logarithmic else value

    axes.plot([place + 1 for place in places], [height(values[place]) for place in places], color=SERIES[0])
    for number, example in enumerate(examples):
        place = values.index(example.value) + 1
        axes.plot([place], [height(example.value)], "o", ms=5, color=SERIES[1], gid=f"{TIP}input-{number}")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("inputs, sorted")
    axes.set_ylabel(title)
    if logarithmic and values[-1] > 30 * least:
        axes.set_yscale("log")


def _notes(found: Disagreement) -> Iterator[str]:
    if found.unseen and found.examples:
        yield found.unseen
    if found.skipped:
        number = "1 input" if len(found.skipped) == 1 else f"{count(len(found.skipped))} inputs"
        more = ", ..." if len(found.skipped) > SKIPPED else ""
        yield f"{number} skipped: {', '.join(found.skipped[:SKIPPED])}{more}"
    if not found.examples:
        yield "No input has another output by the two nets."
