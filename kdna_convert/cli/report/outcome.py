"""What came of it: divergence after each stage, evaluation, and the checks of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.specs import Divergence
from .figures import count, grid, note, percent, short

if TYPE_CHECKING:  # these files import torch, and a report needs none
    from ...network.folder import Check
    from ...stages.evaluate.accuracy import Evaluation


def divergence_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """How far from the original the net is at each stage, on the same held-back images."""
    table = grid("stage", ">agreement", ">KL, nats", ">logit error", ">images")
    for stage, seen in stages.items():
        row = (percent(seen.agreement), f"{seen.kl:.4f}", percent(seen.logit_error, 2), count(seen.images))
        table.add_row(stage, *row)
    return Group(table, note("agreement: the same top-1; KL(original, this); logit error: |z - z0|² / |z0|²"))


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """What `kdna eval` found, a line each; what could not be measured is a dash."""
    table = grid("measure", ">value")
    for name, value in evaluation_rows(evaluation).items():
        table.add_row(name, value)
    return table


def evaluation_rows(evaluation: Evaluation) -> dict[str, str]:
    def share(value: float | None) -> str:
        return "-" if value is None else percent(value, 2)

    return {
        "top-1": share(evaluation.top1),
        "top-5": share(evaluation.top5),
        "images": count(evaluation.images),
        "agreement with the original": share(evaluation.agreement),
        "KL from the original, nats": "-" if evaluation.kl is None else f"{evaluation.kl:.4f}",
        "parameters": count(evaluation.params),
        "bytes": "-" if evaluation.bytes is None else count(evaluation.bytes),
        "MACs": "-" if evaluation.macs is None else short(evaluation.macs),
    }


def check_table(checks: Sequence[Check]) -> RenderableType:
    """Every claim of a folder that was checked, and what was found."""
    table = grid("check", "", "found")
    for check in checks:
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.detail, style=None if check.ok else "bold red")
    failed = sum(not check.ok for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    return Group(table, "", verdict)
