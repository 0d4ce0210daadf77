"""Where two nets answer differently: plain values, the pictures among them as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pixels:
    """A picture: rows of pixels from the top, with a byte for each of 1 (gray) or 3 (red, green, blue) channels."""

    width: int
    height: int
    channels: int
    values: bytes


@dataclass(frozen=True)
class FoundBox:
    """A box that a detector found: x1, y1, x2, y2 in shares of the sides of the input, its class and its score."""

    corners: tuple[float, float, float, float]
    number: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What a net says of one input, or its label. What the task has no use for is empty.

    Attributes:
        classes: The numbers of the classes: one, or a row of them.
        probability: Of that class.
        numbers: Numbers that are no classes.
        boxes: The boxes that a detector is certain of, those with the highest scores first.
    """

    classes: tuple[int, ...] = ()
    probability: float | None = None
    numbers: tuple[float, ...] = ()
    boxes: tuple[FoundBox, ...] = ()


@dataclass(frozen=True)
class Example:
    """An input on which two nets disagree.

    Attributes:
        place: Its number in the order of reading, from 0.
        value: How far the nets are apart on it, by the measure of the task.
        original: The answer of the original.
        converted: The answer of the converted net.
        truth: The label, None without one.
        pictures: Pictures of the input and of what the nets made of it, with captions; empty for other inputs.
        wave: Of a sound: the largest and the smallest sample of each part, in -1..1.
        name: Of its file.
    """

    place: int
    value: float
    original: Answer
    converted: Answer
    truth: Answer | None = None
    pictures: tuple[tuple[str, Pixels], ...] = ()
    wave: tuple[tuple[float, float], ...] = ()
    name: str = ""


@dataclass(frozen=True)
class AnswerCounts:
    """How many answers there are, and how many differ. Without labels `lost` and `gained` are None.

    Attributes:
        answers: All: of images, of their outputs or of their pixels.
        changed: Other than the original's.
        lost: Right in the original, and wrong now.
        gained: Wrong in the original, and right now.
    """

    answers: int
    changed: int
    lost: int | None
    gained: int | None


@dataclass(frozen=True)
class ClassChange:
    """The answers on the inputs of one class: how many, and the share, 0..1, that is right before and after.

    For pixels the shares are the intersection over the union. Without labels the original's answers are the right ones.
    """

    number: int
    count: int
    before: float
    after: float


@dataclass(frozen=True)
class Confusion:
    """A wrong answer for a class: how often the original gives it, and the converted net. Without labels as above."""

    truth: int
    answer: int
    before: int
    after: int


@dataclass(frozen=True)
class Disagreement:
    """Where two nets answer differently, over all inputs.

    Attributes:
        task: What the outputs mean, a key of TASKS.
        labeled: Whether the right answers are labels, rather than the original's answers.
        values: How far the nets are apart on each input, in the order of reading.
        examples: The inputs on which they are furthest apart, the furthest first.
        typical: One whose value is near the median.
        counts: How many answers differ, None for a task without classes.
        classes: Each class that occurs, those that changed most for their count first.
        confusions: The wrong answers that the converted net gives more often, the largest increase first.
        names: Of classes, by their number.
        unseen: Why there are no pictures; empty where there are.
        skipped: The images that could not be read.
    """

    task: str
    labeled: bool
    values: tuple[float, ...]
    examples: tuple[Example, ...]
    typical: Example | None = None
    counts: AnswerCounts | None = None
    classes: tuple[ClassChange, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    unseen: str = ""
    skipped: tuple[str, ...] = ()
