"""The tables and pictures of results in README.md and the docs, made from the rows in benchmarks/results.

    python benchmarks/tables.py            # write them again
    python benchmarks/tables.py --check    # exit code 1 where a page differs from the rows

In a page, a table stands between `<!-- table NAME -->` and `<!-- /table -->`. result_tables.py has the tables by NAME.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from plot import draw_pictures
from result_tables import TABLES

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
MARKED = re.compile(r"(<!-- table ([a-z0-9-]+) -->\n)(.*?)(<!-- /table -->)", re.S)


def filled(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with each marked table made again. Raises KeyError for a name that is no table."""
    return MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]()}\n{found[4]}", page)


def names(page: str) -> list[str]:
    """The names of the tables in a page."""
    return [found[2] for found in MARKED.finditer(page)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    differing = []
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        made = filled(page, TABLES)
        if made != page:
            differing.append(path)
            if not check:
                path.write_text(made, encoding="utf-8")
    for path in differing:
        print(f"{path.relative_to(ROOT)} {'differs from the rows' if check else 'written'}")
    if not check:
        draw_pictures(ROOT / "docs")
    sys.exit(check and bool(differing))


if __name__ == "__main__":
    main()
