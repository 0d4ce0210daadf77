"""What came out: size, speed and accuracy before and after, and what these numbers do not say."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.amounts import count, kept, measured, milliseconds, percent, short, size
from ...core.measurements import MEASURES, Divergence, Evaluation
from ...core.specs import Plan
from ..material import Material
from ..part import Column, Part, filled, table

Row = tuple[str, str, str, str]


def outcome(material: Material) -> Part | None:
    """Before and after, for a conversion."""
    plan = material.plan
    if plan is None:
        return None
    divergence = material.report.divergence if material.report else None
    columns = (Column(""), Column("original", True), Column("converted", True), Column("kept", True))
    rows = [*sizes_of(plan), *_times(material), *_evaluated(material)]
    caption = "Size and speed of the two nets" + (", and accuracy on labeled images" if material.converted else "")
    body = filled(
        "outcome.html",
        bars=[(name, after / before) for name, before, after in shares_of(plan)],
        table=table(columns, rows, caption),
        measures=_measures(divergence),
        heading=f"Compared with the original, on {divergence.images:,} held-out inputs" if divergence else "",
        caveats=[*_caveats(material)],
    )
    return Part("outcome", "What came out", _sentence(plan, divergence, _first(material)), body)


def _sentence(plan: Plan, divergence: Divergence | None, first: str | None) -> str:
    before, after = plan.original, plan.planned
    what = f"The converted net has {kept(after.params, before.params)} of the parameters of the original"
    what = f"{what}, and its file {kept(after.bytes, before.bytes)} of the bytes."
    if first is not None:
        return f"{what} {first}"
    if divergence is None:
        return f"{what} The distance from the original was not measured, since there were no images."
    if divergence.agreement is not None:
        return f"{what} It gives the same answer on {percent(divergence.agreement)} of {divergence.images:,} images."
    name, value = next(iter(divergence.measures.items()), ("relative error", divergence.logit_error))
    amount = measured(name, value) if name in MEASURES else f"{value:.3g}"
    title = MEASURES[name].title if name in MEASURES else name
    return f"{what} {title} of its outputs to those of the original: {amount}, on {divergence.images:,} inputs."


def shares_of(plan: Plan) -> Iterator[tuple[str, int, int]]:
    """(what, before, after) of the bars."""
    before, after = plan.original, plan.planned
    yield "parameters", before.params, after.params
    yield "bytes of the file", before.bytes, after.bytes


def sizes_of(plan: Plan) -> list[Row]:
    """The rows of a table: what, before, after, kept."""
    before, after = plan.original, plan.planned
    return [
        ("parameters", count(before.params), count(after.params), kept(after.params, before.params)),
        ("bytes of the file", size(before.bytes), size(after.bytes), kept(after.bytes, before.bytes)),
        ("MACs per input, folded", short(before.macs), short(before.macs), kept(before.macs, before.macs)),
        ("MACs per input, run factored", short(before.macs), short(after.macs), kept(after.macs, before.macs)),
    ]


def _times(material: Material) -> Iterator[Row]:
    latency = material.report.latency if material.report else None
    if latency is not None:
        before, after = latency.original * 1e6, latency.measured * 1e6
        yield f"time, {latency.timed}", milliseconds(before), milliseconds(after), kept(int(after), int(before))


def _evaluated(material: Material) -> Iterator[Row]:
    """Accuracy on labeled images; a difference in percent points is no share, so that column stays empty."""
    before, after = material.original, material.converted
    if before is None or after is None:
        return
    was, now = _accuracies(before), _accuracies(after)
    for name in [name for name in was if name in now]:
        yield (
            f"{MEASURES[name].title}, {after.images:,} images",
            measured(name, was[name]),
            measured(name, now[name]),
            "",
        )


def _first(material: Material) -> str | None:
    """The first measure with labels, which says more than the distance on images held out of the calibration images."""
    before, after = material.original, material.converted
    if before is None or after is None:
        return None
    was, now = _accuracies(before), _accuracies(after)
    for name in (each for each in was if each in now):
        figures = f"{measured(name, now[name])}, the original's {measured(name, was[name])}"
        title = MEASURES[name].title
        return f"{title[0].upper()}{title[1:]} is {figures}, on {after.images:,} labeled images."
    return None


def _accuracies(evaluation: Evaluation) -> dict[str, float]:
    tops = {"top1": evaluation.top1, "top5": evaluation.top5}
    found = {name: value for name, value in tops.items() if value is not None}
    return found | {name: value for name, value in evaluation.measures.items() if name in MEASURES}


def _measures(divergence: Divergence | None) -> list[tuple[str, str]]:
    """What was measured against the original, by its title."""
    if divergence is None:
        return []
    rows = [] if divergence.agreement is None else [("same answer", percent(divergence.agreement, 2))]
    rows += [] if divergence.kl is None else [("KL divergence, nats", f"{divergence.kl:.2g}")]
    rows += [
        (MEASURES[name].title, measured(name, value)) for name, value in divergence.measures.items() if name in MEASURES
    ]
    return [*rows, ("relative error of the outputs", percent(divergence.logit_error, 3))]


def _caveats(material: Material) -> Iterator[str]:
    """What the numbers above do not say."""
    plan, report = material.plan, material.report
    if plan is None:
        return
    if plan.families:
        yield "Sharing alone does not reduce MACs: a folded net computes the convolutions of the original."
    if report is not None and report.code is not None:
        yield "The file is small. Loaded, the net takes the memory of its plain weights."
    if report is not None and report.divergence is not None:
        yield "Compared on images held out of the calibration images, which need not be those that the net will meet."
    if material.converted is None:
        yield "Accuracy was not measured. `kdna report` measures it with --data and labeled images of a test set."
    if plan.board is not None:
        yield "Limits of a device are estimates of its profile. Nothing ran on the device."
