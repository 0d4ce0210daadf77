"""The classes that lost and gained, and the wrong answers that are new, as tables."""

from __future__ import annotations

from markupsafe import Markup

from ..core.amounts import count, percent
from ..core.disagreement import ClassChange, Disagreement
from .part import Column, filled, table
from .wording import class_name

# What is shown before the table of all is opened.
CLASSES, CONFUSIONS = 20, 10


def classes_table(found: Disagreement) -> Markup:
    """The classes that changed most as bars, and all of them as a table."""
    changed = [row for row in found.classes if row.before != row.after]
    if not found.classes:
        return Markup()
    share = "IoU" if found.task == "segment" else "right"
    what = "pixels" if found.task == "segment" else "inputs"
    columns = (
        Column("class"),
        Column("lost | gained"),
        Column(f"{share} before", True),
        Column(f"{share} after", True),
        Column("points", True),
        Column(what, True),
    )
    largest = max((abs(row.after - row.before) for row in changed[:CLASSES]), default=1.0)
    rows = [
        (
            class_name(found, row.number),
            filled("shift.html", share=(row.after - row.before) / largest),
            *_shares(row),
        )
        for row in changed[:CLASSES]
    ]
    every = [
        (class_name(found, row.number), *_shares(row)) for row in sorted(found.classes, key=lambda row: row.number)
    ]
    most = f"The {len(rows)} that changed most, of {len(changed)}" if len(changed) > CLASSES else "Those that changed"
    plain = (columns[0], *columns[2:])
    first = table(columns, rows, most) if rows else filled("note.html", text="No class changed.")
    return first + table(plain, every, f"All {len(every)}", folded=True)


def confusions_table(found: Disagreement) -> Markup:
    """The wrong answers that the converted net gives more often than the original."""
    truth = "true class" if found.labeled else "answer of the original"
    columns = (
        Column(truth),
        Column("answer of the converted net"),
        Column("more often by", True),
        Column("original", True),
        Column("converted", True),
    )
    rows = [
        (
            class_name(found, row.truth),
            class_name(found, row.answer),
            count(row.after - row.before),
            count(row.before),
            count(row.after),
        )
        for row in found.confusions
    ]
    if not rows:
        return Markup()
    first = table(columns, rows[:CONFUSIONS], "Wrong answers that the converted net gives more often")
    rest = rows[CONFUSIONS:]
    return first + (table(columns, rest, f"{len(rest)} more", folded=True) if rest else Markup())


def _shares(row: ClassChange) -> tuple[str, str, str, str]:
    change = 100 * (row.after - row.before)
    return percent(row.before), percent(row.after), f"{change:+.1f}" if change else "0", count(row.count)
