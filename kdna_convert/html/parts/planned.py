"""What a plan would make: its size, and what is expected of it. Nothing has been converted."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.amounts import kept, percent
from ...core.specs import Plan
from ...stages.plan.expected import Expected, expected
from ..material import Material
from ..part import Column, Part, filled, table
from .outcome import shares_of, sizes_of


def planned(material: Material) -> Part | None:
    """The original and what is planned."""
    plan, repairs = material.plan, material.repairs
    if plan is None:
        return None
    foreseen = None if repairs is None else expected(plan, repaired=repairs)
    columns = (Column(""), Column("original", True), Column("planned", True), Column("kept", True))
    body = filled(
        "outcome.html",
        bars=[(name, after / before) for name, before, after in shares_of(plan)],
        table=table(columns, sizes_of(plan), "Size of the two nets, exact"),
        heading="Expected of the converted net",
        measures=[*_measures(foreseen)],
        caveats=[*_caveats(plan, repairs)],
    )
    return Part("planned", "What is planned", _sentence(plan, foreseen), body)


def _sentence(plan: Plan, foreseen: Expected | None) -> str:
    before, after = plan.original, plan.planned
    what = f"The converted net will have {kept(after.params, before.params)} of the parameters of the original"
    what = f"{what}, and its file {kept(after.bytes, before.bytes)} of the bytes."
    if foreseen is None:
        return f"{what} Its accuracy cannot be predicted without images."
    return f"{what} It is expected to give the same answer on {percent(foreseen.agreement.middle)} of the images."


def _measures(foreseen: Expected | None) -> Iterator[tuple[str, str]]:
    if foreseen is not None:
        agreement, kl = foreseen.agreement, foreseen.kl
        yield "same answer", f"{percent(agreement.middle)} ({percent(agreement.low)} to {percent(agreement.high)})"
        yield "KL divergence, nats", f"{kl.middle:.2g} ({kl.low:.2g} to {kl.high:.2g})"


def _caveats(plan: Plan, repairs: bool | None) -> Iterator[str]:
    yield "Nothing was converted. `kdna convert` with the same arguments makes this net."
    if plan.families:
        yield "Sharing alone does not reduce MACs: a folded net computes the convolutions of the original."
    if repairs is not None:
        yield "The ranges are those of nets that were measured; `kdna plan --curve --measure` measures yours."
    if plan.board is not None:
        yield "Limits of a device are estimates of its profile. Nothing ran on the device."
