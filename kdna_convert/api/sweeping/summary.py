"""The summary of a sweep: the rows as CSV, and the page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ...core.atomic import write_text
from ...core.sweep_result import SweepResult, SweepRow
from ..result_pages import page_of_result

TABLE, PAGE = "summary.csv", "summary.html"
_COLUMNS = ("job", "net", "recipe", "budget", "seed", "state", "code", "params", "bytes", "macs")
_LATER = ("original_params", "original_bytes", "seconds", "cpu_seconds", "peak_bytes", "host", "command", "message")


def write_summary(folder: Path, result: SweepResult, command: str | None) -> None:
    """Write the table, and the page with the command that made it. Raises FolderError KD604."""
    write_text(folder / TABLE, as_csv(result))
    page_of_result(result, command=command).save(folder / PAGE, force=True)


def as_csv(result: SweepResult) -> str:
    """One line per row; measures are columns, those of the original begin with `original_`."""
    cells = [_cells(row) for row in result.rows]
    known = {name for each in cells for name in each}
    measures = sorted(known - {*_COLUMNS, *_LATER})
    text = io.StringIO()
    table = csv.DictWriter(text, [*_COLUMNS, *measures, *_LATER], restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(cells)
    return text.getvalue()


def _cells(row: SweepRow) -> dict[str, Any]:
    cells: dict[str, Any] = {name: getattr(row, name) for name in (*_COLUMNS[:7], *_LATER[2:])}
    if row.result is not None:
        cells |= {"params": row.result.params, "bytes": row.result.bytes, "macs": row.result.macs}
        cells |= row.result.measures
    if row.original is not None:
        cells |= {"original_params": row.original.params, "original_bytes": row.original.bytes}
        cells |= {f"original_{name}": value for name, value in row.original.measures.items()}
    return {name: "" if value is None else value for name, value in cells.items()}
