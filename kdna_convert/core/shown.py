"""Text from files and models as it may be printed: names cannot color a terminal, move its cursor or forge a line."""

from __future__ import annotations

import re

# C0 and C1 controls, separators of lines, marks that change the direction of text, and halves of a surrogate pair.
_CONTROLS = "\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINES, _IN_A_LINE = re.compile(f"[{_CONTROLS}]"), re.compile(f"[{_CONTROLS}\n]")


def shown(text: str, *, lines: bool = False) -> str:
    """The text with each control character as an escape, such as \\x1b or \\n. `lines` keeps line ends."""
    pattern = _IN_LINES if lines else _IN_A_LINE
    return pattern.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def shown_json(text: str) -> str:
    """JSON with each control character that JSON allows in a string as its escape."""
    return _IN_LINES.sub(lambda control: f"\\u{ord(control[0]):04x}", text)
