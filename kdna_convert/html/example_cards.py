"""The inputs on which two nets disagree most, as cards with pictures or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..core.disagreement import Answer, Disagreement, Example, FoundBox
from .part import Column, table
from .thumbnail import Thumbnail, thumbnail
from .wording import brief, brief_file, class_name, measure_of

# Bytes of all pictures, before they are written in base64.
ROOM = 270_000
# The most classes of a row that are shown.
MOST = 30
SOUND = (240, 60)


@dataclass(frozen=True)
class Said:
    """What is said of an input, by whom, whether it is right, and a class of the style sheet."""

    who: str
    what: str
    how: str = ""


@dataclass(frozen=True)
class Card:
    """An input as it is shown."""

    name: str
    value: str
    pictures: Sequence[tuple[str, Thumbnail]]
    said: Sequence[Said]
    wave: str
    boxes: Sequence[tuple[str, Sequence[FoundBox]]]
    table: Markup


def seen(found: Disagreement) -> bool:
    """Whether any example has a picture or a wave."""
    return any(example.pictures or example.wave for example in _shown(found))


def cards(found: Disagreement) -> list[Card]:
    """Every example, the typical one last."""
    shown = _shown(found)
    each = ROOM // max(1, sum(len(example.pictures) for example in shown))
    return [_card(found, example, each) for example in shown]


def examples_table(found: Disagreement) -> Markup:
    """The same without pictures."""
    measure = measure_of(found.task)
    shown = [(example, _said(found, example)) for example in _shown(found)]
    heads = [said.who for said in shown[0][1]]
    columns = (Column("input"), *(Column(head) for head in heads), Column(measure.title, True))
    rows = [
        (brief_file(example.name), *(_in_words(one) for one in said), measure.shown(example.value))
        for example, said in shown
    ]
    return table(columns, rows, "The inputs on which the nets disagree most")


def _shown(found: Disagreement) -> tuple[Example, ...]:
    """The examples, then the typical input, unless it is one of them."""
    typical = found.typical
    known = typical is None or typical.place in {example.place for example in found.examples}
    return found.examples if typical is None or known else (*found.examples, typical)


def _both(example: Example) -> tuple[tuple[str, Answer], ...]:
    return ("original", example.original), ("converted", example.converted)


def _in_words(said: Said) -> str:
    return f"{said.what} ({said.how})" if said.how else said.what


def _card(found: Disagreement, example: Example, most: int) -> Card:
    measure = measure_of(found.task)
    typical = " (near the median)" if example is found.typical else ""
    return Card(
        brief_file(example.name),
        measure.shown(example.value) + typical,
        [(caption, thumbnail(pixels, most)) for caption, pixels in example.pictures],
        _said(found, example),
        _outline(example.wave),
        [(who, answer.boxes) for who, answer in _both(example)] if found.task == "detect" else [],
        _boxes(found, example),
    )


def _said(found: Disagreement, example: Example) -> list[Said]:
    """What both nets answer, and the label; nothing where a task has no answer that fits on a line."""
    said = [Said(who, _words(found, answer), _judged(answer, example.truth)) for who, answer in _both(example)]
    said = [one for one in said if one.what]
    return said if example.truth is None else [*said, Said("label", _words(found, example.truth))]


def _words(found: Disagreement, answer: Answer) -> str:
    if found.task == "detect":
        return "1 box" if len(answer.boxes) == 1 else f"{len(answer.boxes)} boxes"
    if answer.numbers:
        return ", ".join(f"{number:.4g}" for number in answer.numbers)
    names = " ".join(brief(class_name(found, number)) for number in answer.classes[:MOST])
    names += " …" if len(answer.classes) > MOST else ""
    if found.task == "sequence":
        return names or "(empty)"
    return names if answer.probability is None else f"{names}, {100 * answer.probability:.1f}\u00a0%"


def _judged(answer: Answer, truth: Answer | None) -> str:
    if truth is None or not truth.classes:
        return ""
    return "right" if answer.classes == truth.classes else "wrong"


def _outline(wave: Sequence[tuple[float, float]]) -> str:
    """The points of a polygon in a box of SOUND."""
    if not wave:
        return ""
    width, height = SOUND
    across = width / max(1, len(wave) - 1)
    tops = [(place * across, height / 2 * (1 - top)) for place, (top, _) in enumerate(wave)]
    ends = [(place * across, height / 2 * (1 - low)) for place, (_, low) in enumerate(wave)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in [*tops, *reversed(ends)])


def _boxes(found: Disagreement, example: Example) -> Markup:
    """The boxes of both nets as a table."""
    rows = [
        (who, class_name(found, box.number), f"{100 * box.score:.1f} %")
        for who, answer in _both(example)
        for box in answer.boxes
    ]
    columns = (Column("net"), Column("class"), Column("score", True))
    return table(columns, rows, f"Boxes of {brief_file(example.name)}", folded=True) if rows else Markup()
