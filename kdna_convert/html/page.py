"""The page: its parts in order, the style and the script, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup, escape

from ..core.atomic import write_text
from ..core.errors import FolderError
from .material import Material
from .part import MakePart, filled
from .parts.alike import similarity
from .parts.answers import answers
from .parts.bench import bench
from .parts.curve import curve
from .parts.finetune import finetune
from .parts.layer_strip import layers
from .parts.loss_by_stage import accuracy
from .parts.opened_families import families
from .parts.origin import origin
from .parts.other_tools import comparison
from .parts.outcome import outcome
from .parts.planned import planned
from .parts.sweep import failures, sweep

# Of a converted folder, in the order of the page.
FOLDER_PARTS: tuple[MakePart, ...] = (
    outcome,
    layers,
    similarity,
    families,
    curve,
    accuracy,
    answers,
    finetune,
    origin,
)
# Of the results of analyze, plan, compare, bench and sweep.
ANALYSIS_PARTS: tuple[MakePart, ...] = (layers, similarity, origin)
PLAN_PARTS: tuple[MakePart, ...] = (planned, layers, curve, origin)
CURVE_PARTS: tuple[MakePart, ...] = (curve, origin)
COMPARISON_PARTS: tuple[MakePart, ...] = (comparison, origin)
BENCH_PARTS: tuple[MakePart, ...] = (bench, origin)
SWEEP_PARTS: tuple[MakePart, ...] = (sweep, failures, origin)
STATIC = ("page.css", "page.js")


@dataclass(frozen=True)
class Page:
    """A page in HTML, complete in one file. A notebook shows it.

    `missing` is why parts were left out, `skipped` the inputs that could not be read.
    """

    title: str
    html: str
    missing: str | None = None
    skipped: tuple[str, ...] = ()

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the file. Raises FolderError KD601 if it exists and `force` is not given."""
        target = Path(path)
        if target.exists() and not force:
            raise FolderError("KD601", f"{target} exists; pass --force to replace it, or choose another name")
        write_text(target, self.html)
        return target

    def in_notebook(self) -> str:
        """A frame that holds the whole page."""
        return f'<iframe srcdoc="{escape(self.html)}" title="{escape(self.title)}" width="100%" height="700"></iframe>'

    _repr_html_ = in_notebook


def page_of(material: Material, parts: Sequence[MakePart] = FOLDER_PARTS) -> Page:
    """The page of these parts. A part with nothing to show is a sentence that says how to fill it."""
    made = [part for part in (make(material) for make in parts) if part is not None]
    static = {
        name: Markup(files(__package__).joinpath("templates").joinpath(name).read_text("utf-8")) for name in STATIC
    }
    style, script = static["page.css"], static["page.js"]
    text = filled("page.html", title=material.title, parts=made, style=style, script=script)
    skipped = material.disagreement.skipped if material.disagreement else ()
    return Page(material.title, str(text), material.missing, skipped)
