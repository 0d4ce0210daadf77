"""The result of `kdna eval`."""

from __future__ import annotations

from rich.console import RenderableType

from ...core.measurements import Evaluation
from .divergence import UNDEFINED
from .figures import count, grid, percent, short


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """One line per measure; a dash where it was not measured."""
    table = grid("measure", ">value")
    for name, value in evaluation_rows(evaluation).items():
        table.add_row(name, value)
    return table


def evaluation_rows(evaluation: Evaluation) -> dict[str, str]:
    def share(value: float | None) -> str:
        return "-" if value is None else percent(value, 2)

    error = evaluation.logit_error
    if error is not None and evaluation.kl is None:
        distance = {"agreement and KL": UNDEFINED, "logit error": percent(error, 2)}
    else:
        kl = "-" if evaluation.kl is None else f"{evaluation.kl:.4f}"
        distance = {"agreement with the original": share(evaluation.agreement), "KL from the original, nats": kl}
    return {
        "top-1": share(evaluation.top1),
        "top-5": share(evaluation.top5),
        "images": count(evaluation.images),
        **distance,
        "parameters": count(evaluation.params),
        "bytes": "-" if evaluation.bytes is None else count(evaluation.bytes),
        "MACs": "-" if evaluation.macs is None else short(evaluation.macs),
    }
