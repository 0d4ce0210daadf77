"""The result of `kdna eval`."""

from __future__ import annotations

from rich.console import RenderableType

from ...core.amounts import count, measured, percent, short
from ...core.measurements import MEASURES, Evaluation
from .figures import grid


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """One line per measure; a dash where it was not measured."""
    table = grid("measure", ">value")
    for name, value in evaluation_rows(evaluation).items():
        table.add_row(name, value)
    return table


def evaluation_rows(evaluation: Evaluation) -> dict[str, str]:
    def share(value: float | None) -> str:
        return "-" if value is None else percent(value, 2)

    rows = {"task": evaluation.task}
    if evaluation.task == "classify":
        rows |= {"top-1": share(evaluation.top1), "top-5": share(evaluation.top5)}
    rows |= {MEASURES[name].title: measured(name, value) for name, value in evaluation.measures.items()}
    rows["images"] = count(evaluation.images)
    if evaluation.task in ("classify", "segment", "binary", "sequence"):
        rows["agreement with the original"] = share(evaluation.agreement)
        rows["KL from the original, nats"] = "-" if evaluation.kl is None else f"{evaluation.kl:.4f}"
    else:
        rows["error from the original"] = share(evaluation.logit_error)
    for name, value in evaluation.from_original.items():
        rows[f"{MEASURES[name].title} with the original"] = measured(name, value)
    return rows | {
        "parameters": count(evaluation.params),
        "bytes": "-" if evaluation.bytes is None else count(evaluation.bytes),
        "MACs": "-" if evaluation.macs is None else short(evaluation.macs),
    }
