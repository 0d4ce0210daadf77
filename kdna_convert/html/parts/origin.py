"""How the net was made: commands, recipe, plan, versions, and the sums of the files."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.amounts import count
from ...core.specs import Plan
from ..material import Material
from ..part import Column, Part, filled, table


def origin(material: Material) -> Part | None:
    """All that is needed to make the net again."""
    plan, report = material.plan, material.report
    facts = [*_facts(plan), *material.machine.items()] if plan is not None else [*material.machine.items()]
    body = filled(
        "origin.html",
        command=material.command,
        recipe=material.recipe,
        facts=table((Column(""), Column("")), facts, "Source, machine and versions") if facts else "",
        families=_families(plan) if plan is not None and plan.families else "",
        files=table((Column("file"), Column("sha256")), [*material.files.items()], "Sums of the files", folded=True)
        if material.files
        else "",
        notes=report.notes if report else (),
    )
    of_net = "The same commands, recipe and versions make the same net again."
    sentence = of_net if report is not None else "What these numbers were made by."
    return Part("origin", "How it was made", sentence, body)


def _facts(plan: Plan) -> Sequence[tuple[str, str]]:
    checkpoint = [("checkpoint", plan.model.checkpoint)] if plan.model.checkpoint else []
    return [
        ("model", plan.model.name),
        *checkpoint,
        ("sha256 of its tensors", plan.model.sha256),
        ("seed", str(plan.seed)),
    ]


def _families(plan: Plan) -> object:
    columns = (Column("family"), Column("scheme"), Column("layers", True), Column("stored", True), Column("options"))
    rows = [
        (
            family.members[0],
            family.scheme,
            len(family.members),
            count(plan.stored[family.members[0]]) if family.members[0] in plan.stored else "-",
            ", ".join(f"{name} {value}" for name, value in family.options.items() if value is not None),
        )
        for family in plan.families
    ]
    return table(columns, rows, "The plan: families, by their first layer", folded=True)
