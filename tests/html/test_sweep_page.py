"""The page of a sweep: every net has its chart, every job its numbers, and a failed one its reason."""

from __future__ import annotations

from support.pages import Reader

from kdna_convert.api.result_pages import page_of_result
from kdna_convert.core.sweep_result import Measured, SweepResult, SweepRow

HOSTILE = "<script>alert(1)</script>"


def row(net: str, recipe: str, budget: str, seed: int | None = None, **measures: float) -> SweepRow:
    original, own = Measured(100, 400, 10, measures), Measured(50, 200, 10, measures)
    job = f"{net}-{recipe}-{budget}-{seed}"
    return SweepRow(job, net, recipe, budget, seed, "kdna run", "mark", "done", original=original, result=own)


def failed(message: str) -> SweepRow:
    return SweepRow("bad", "net", "r", "params 0.5", None, "kdna run bad", "mark", "failed", "KD501", message)


def html(*rows: SweepRow) -> str:
    return page_of_result(SweepResult("grid.yaml", rows, ("later",))).html


def test_every_net_has_a_chart_of_parameters_and_one_of_bytes_and_every_point_can_be_read() -> None:
    rows = [row(net, "accurate", budget, top1=0.9) for net in ("a", "b") for budget in ("params 0.5", "bytes 1/20")]
    page = html(*rows)
    assert page.count("<svg ") == 4
    assert page.count('class="tip"') == 2 * (1 + 2)  # that of bytes has both budgets
    assert "accurate, bytes 1/20: 50.0 %, 90.00 % top-1" in page
    assert "4 of 5 jobs are done" in page


def test_seeds_are_one_point_with_their_range() -> None:
    page = html(*(row("a", "accurate", "params 0.5", seed, top1=0.9 + seed / 100) for seed in range(3)))
    assert "91.00 % top-1 (within 2.00 % over 3 seeds)" in page


def test_a_failed_job_is_told_with_its_code_and_text_of_users_is_not_run() -> None:
    page = html(failed(HOSTILE), row(HOSTILE, HOSTILE, "params 0.5", top1=0.9))
    assert "KD501" in page
    assert "<script>alert" not in page
    assert len(Reader(page).attributes("id")) == len({*Reader(page).attributes("id")})


def test_a_sweep_without_measures_is_a_table() -> None:
    page = html(row("a", "accurate", "params 0.5"), row("b", "accurate", "params 0.5", psnr=31.5))
    assert page.count("<svg ") == 1
    assert "31.50 dB PSNR" in page
