"""How answers are put into words: the names of classes, and the measure that ranks the inputs of a task."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.amounts import percent
from ..core.disagreement import Disagreement

# The most characters of a name in a narrow place.
BRIEF = 40


@dataclass(frozen=True)
class RankingMeasure:
    """By what the inputs of a task are ranked.

    Attributes:
        title: For a card and an axis.
        ranked: The same in a sentence.
        form: How a value is written; % for a share.
        logarithmic: Whether its axis may be.
        lowest: Whether a low value is far apart.
    """

    title: str
    ranked: str
    form: str = "{:.3g}"
    logarithmic: bool = True
    lowest: bool = False

    def shown(self, value: float) -> str:
        return percent(value, 2) if self.form == "%" else self.form.format(value)


_KL = "the KL divergence of the converted net's probabilities from the original's, in nats"
_MEASURES = {
    "classify": RankingMeasure("KL, nats", _KL),
    "binary": RankingMeasure("KL, nats", f"{_KL}, the mean over its outputs"),
    "segment": RankingMeasure("changed", "the share of pixels with another answer", "%", False),
    "sequence": RankingMeasure("KL, nats", f"{_KL}, the mean over positions"),
    "regress": RankingMeasure("difference", "the root mean square difference of the outputs"),
    "embed": RankingMeasure("1 - cosine", "1 less the cosine of the two vectors"),
    "raw": RankingMeasure("error", "the relative error of the outputs, their squared difference over their square"),
    "image": RankingMeasure("PSNR", "the PSNR between the two outputs", "{:.2f} dB", False, True),
    "detect": RankingMeasure("apart", "the boxes that one net alone has, plus 1 - IoU of each shared one", "{:.2f}"),
}


def measure_of(task: str) -> RankingMeasure:
    return _MEASURES[task]


def class_name(found: Disagreement, number: int) -> str:
    """The name of a class, else its number. Of yes-or-no answers: the output, and which of the two."""
    if found.task != "binary":
        return found.names.get(number, str(number))
    output, yes = divmod(number, 2)
    return f"{found.names.get(output, f'output {output}')}: {'yes' if yes else 'no'}"


def brief(name: str) -> str:
    """The beginning of a name, at most BRIEF characters."""
    return name if len(name) <= BRIEF else f"{name[: BRIEF - 1]}…"


def brief_file(name: str) -> str:
    """The end of the name of a file, at most twice BRIEF characters."""
    return name if len(name) <= 2 * BRIEF else f"…{name[1 - 2 * BRIEF :]}"
