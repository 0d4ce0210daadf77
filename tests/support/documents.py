"""The documentation as data: pages, links, blocks of code and command lines."""

from __future__ import annotations

import re
import runpy
import shlex
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .places import ROOT

DOCS = ROOT / "docs"
RUN = "<!-- run -->"
# A fenced block, with what stands on the line before it.
_FENCE = re.compile(
    r"^(?P<before>[^\n]*)\n(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


class CodeBlock(NamedTuple):
    """A fenced block of code; `runs` says that it is marked to be run as it is written."""

    language: str
    text: str
    runs: bool


@cache
def generator() -> dict[str, Any]:
    """What docs/generated.py defines."""
    return runpy.run_path(str(DOCS / "generated.py"))


@cache
def pages() -> dict[Path, str]:
    """Every page of the repository by its path, those that are generated for the site too."""
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md")
    written = [ROOT / name for name in names]
    texts = {path: path.read_text(encoding="utf-8") for path in [*written, *sorted(DOCS.rglob("*.md"))]}
    return texts | {DOCS / name: text for name, text in generator()["pages"]().items()}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of a page, in order."""
    return [CodeBlock(m["language"], m["text"], m["before"].strip() == RUN) for m in _FENCE.finditer("\n" + text)]


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures, but for those in code."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", "\n" + text))
    return [link or picture for link, picture in _LINK.findall(prose)]


def anchors(text: str) -> set[str]:
    """What a link into this page may name: its headings, as Python-Markdown writes them."""
    headings = re.findall(r"^#+ +(.+)$", _FENCE.sub("", "\n" + text), re.M)
    return {_slug(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings}


def _slug(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def whole_commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `kdna ...` that stands in a block of code, comments of a recipe included."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    inside = None
    for line in joined.splitlines():
        fence = re.match(r" *```(\w*)", line)
        if fence:
            inside = None if inside is not None else fence[1]
            continue
        if inside == "text" or (inside is None and not re.match(r" {4}|#   ", line)):
            continue
        for part in line.lstrip("# ").split("&&"):
            if start := re.match(r"\s*(\w+=\S+ )*kdna (?=[a-z-])|.* -m kdna_convert (?=[a-z])", part):
                yield shlex.split(part[start.end() :], comments=True)


def mentioned_commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `kdna ...` in the prose, where some may be left out."""
    prose = _FENCE.sub("", "\n" + text)
    for mention in re.findall(r"`kdna ([^`]+)`", re.sub(r"\s*\n[ #]*", " ", prose)):
        yield shlex.split(mention.replace(" ...", ""))
