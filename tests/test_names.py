"""Names say what they name: one file and one class a name, and every file that the prose mentions exists."""

import ast
import re
import tokenize
from collections import Counter
from pathlib import Path
from tokenize import COMMENT, STRING

from kdna_convert.routing import ROUTINGS
from kdna_convert.schemes import SCHEMES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kdna_convert"
# A copy of it is in every folder; it shares no code with the package.
LOADER = PACKAGE / "network" / "folder" / "standalone_loader.py"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A command has its name in api, in cli/commands and in cli/report. The rest prints what a module of its name computes.
COMMANDS = {path.stem for path in (PACKAGE / "cli" / "commands").glob("*.py")}
SHARED = COMMANDS | {"curve", "expected"} | (SCHEMES.keys() & ROUTINGS.keys()) | {"__init__", "__main__"}

TREE = [path.relative_to(ROOT) for path in ROOT.rglob("*.py") if not {".venv", ".git"} & set(path.parts)]
CODE = [ROOT / path for path in TREE if path.parts[:2] != ("tests", "folders")]
PROSE = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
MENTION = re.compile(r"(?<![\w{<.*/-])(?:[\w-]+/|\.\./)*[\w-]+\.py\b(?!\w)")
# Files of users, of other projects, and those that docs/extending adds.
FOREIGN = {"mine.py", "net.py", "mynet.py", "model.py", "file.py", "subprocess.py", "loader.py"}
ADDED = {"int16.py", "recenter.py", "loudness.py", "meanlowrank.py"}


def test_a_file_name_occurs_once_in_the_package() -> None:
    counts = Counter(path.stem for path in MODULES)
    assert {name for name, count in counts.items() if count > 1} <= SHARED


def test_a_class_name_occurs_once_in_the_package() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES if path != LOADER]
    counts = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


def mentions(path: Path) -> list[str]:
    """The files that a page, or the docstrings and comments of a module, mention."""
    if path.suffix == ".md":
        return MENTION.findall(path.read_text(encoding="utf-8"))
    with path.open("rb") as file:
        tokens = [token.string for token in tokenize.tokenize(file.readline) if token.type in (COMMENT, STRING)]
    return [name for text in tokens if text.startswith(("#", '"""')) for name in MENTION.findall(text)]


def exists(mention: str, place: Path) -> bool:
    """Whether one file is meant: its path ends with the mention; of several with a bare name, one is near `place`."""
    parts = tuple(part for part in mention.split("/") if part != "..")
    if parts[-1] in FOREIGN | ADDED:
        return True
    files = [ROOT / path for path in TREE if path.parts[-len(parts) :] == parts]
    return len(files) == 1 or any(len(parts) > 1 or path.is_relative_to(place.parent) for path in files)


def test_a_file_that_a_page_a_docstring_or_a_comment_mentions_exists() -> None:
    mentioned = [(str(path.relative_to(ROOT)), mention) for path in (*PROSE, *CODE) for mention in mentions(path)]
    assert len(mentioned) > 200
    assert [(path, mention) for path, mention in mentioned if not exists(mention, ROOT / path)] == []
