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
from .parts.accuracy import accuracy
from .parts.families import families
from .parts.finetune import finetune
from .parts.layers import layers
from .parts.origin import origin
from .parts.outcome import outcome
from .parts.similarity import similarity

# Of a converted folder, in the order of the page.
FOLDER_PARTS: tuple[MakePart, ...] = (outcome, layers, similarity, families, accuracy, finetune, origin)
# Of an analysis.
ANALYSIS_PARTS: tuple[MakePart, ...] = (layers, similarity)
STATIC = ("page.css", "page.js")


@dataclass(frozen=True)
class Page:
    """A page in HTML, complete in one file. A notebook shows it."""

    title: str
    html: str

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the file. Raises FolderError KD601 if it exists and `force` is not given."""
        target = Path(path)
        if target.exists() and not force:
            raise FolderError("KD601", f"{target} exists; pass --force to replace it, or choose another name")
        write_text(target, self.html)
        return target

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html)}" title="{escape(self.title)}" width="100%" height="700"></iframe>'


def page_of(material: Material, parts: Sequence[MakePart] = FOLDER_PARTS) -> Page:
    """The page of these parts. A part with nothing to show is a sentence that says how to fill it."""
    made = [part for part in (make(material) for make in parts) if part is not None]
    static = {
        name: Markup(files(__package__).joinpath("templates").joinpath(name).read_text("utf-8")) for name in STATIC
    }
    style, script = static["page.css"], static["page.js"]
    return Page(material.title, filled("page.html", title=material.title, parts=made, style=style, script=script))
