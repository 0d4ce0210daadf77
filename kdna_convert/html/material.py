"""What a page may be made of. A part shows what it finds here, and says what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..core.comparison import Comparison
from ..core.disagreement import Disagreement
from ..core.measurements import Analysis, Curve, Evaluation
from ..core.specs import DataConfig, Plan
from ..core.sweep_result import SweepResult
from ..network.folder.report import Report
from ..stages.evaluate.timing import Timing
from .picture import FamilyPictures, Picture


@dataclass(frozen=True)
class Material:
    """What is known about a net or a conversion, and may be shown. What is not known is None or empty.

    Attributes:
        title: The heading of the page.
        folder: The converted folder as the user named it, for the commands that a part tells.
        plan: What each layer becomes.
        report: How the conversion came about.
        recipe: The recipe's YAML.
        data: The input of the net.
        files: The sha256 of each file of the folder, by name.
        command: The commands that made it, one on a line.
        machine: The processor, and the versions of what wrote the page, by name.
        analysis: The layers that could share kernels, and their similarity.
        curve: Other budgets.
        repairs: Of a plan or a curve: whether a conversion is repaired; None without images, where nothing is expected.
        original: The original on labeled images.
        converted: The converted net on the same images.
        comparison: The net beside those of other tools.
        timings: The times of nets.
        missing: Why the converted net or the original is not available, for the parts that need it.
        disagreement: Where the answers of the two nets differ, on the user's images.
        compared: How `analysis` was made, and what is left out of it; without one: why.
        kernels: Pictures of kernels by layer.
        families: Pictures of families, by the order of the plan; those that are not here were left out.
        sweep: The rows of a sweep.
    """

    title: str
    folder: str | None = None
    plan: Plan | None = None
    report: Report | None = None
    recipe: str | None = None
    data: DataConfig | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    machine: Mapping[str, str] = field(default_factory=dict)
    analysis: Analysis | None = None
    curve: Curve | None = None
    repairs: bool | None = None
    original: Evaluation | None = None
    converted: Evaluation | None = None
    comparison: Comparison | None = None
    timings: tuple[Timing, ...] = ()
    missing: str | None = None
    disagreement: Disagreement | None = None
    compared: str | None = None
    kernels: Mapping[str, Picture] = field(default_factory=dict)
    families: Sequence[FamilyPictures] = ()
    sweep: SweepResult | None = None
