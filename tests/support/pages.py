"""What a page shows: text of users that tries to be code, and a page as a browser reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser

from kdna_convert.core.measurements import Analysis, Curve, Divergence, Group, Point
from kdna_convert.core.specs import Family, Layer, ModelRef, Plan, Totals
from kdna_convert.html import Material
from kdna_convert.network.folder.report import FamilyFit, FinetuneReport, Look, Report, StepResult

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></script><b>",
    "{{ 7 * 7 }}",
    "l" * 200,
    "\u05e9\u05db\u05d1\u05d4 \u202e reversed",
    "\U0001f600 emoji",
)


class Reader(HTMLParser):
    """The elements of a page, their attributes and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data if self._inside not in ("script", "style") else ""

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]


def plan_of(names: tuple[str, ...]) -> Plan:
    """A plan of two families and a skipped layer for layers of these names."""
    layers = [Layer(name, "Conv2d", (8, 8, 3, 3), out_positions=64) for name in names]
    layers[0] = replace(layers[0], reason="KD101")
    half = 1 + len(layers) // 2
    families = [Family("cp", names[1:half], {"rank": 4}), Family("codebook", names[half:], {"rank": 9})]
    families = [family for family in families if family.members]
    return Plan(
        ModelRef(names[-1], names[-1], "0" * 64),
        tuple(families),
        tuple(layers),
        Totals(10_000, 40_000, 100_000),
        Totals(4_000, 16_000, 80_000),
        predicted={family.members[0]: 1e-3 for family in families},
        stored={family.members[0]: 300 * len(family.members) for family in families},
    )


def analysis_of(plan: Plan) -> Analysis:
    """All layers but the first in one group, more similar the nearer they are."""
    members = tuple(layer.name for layer in plan.layers[1:])
    near = tuple(tuple(1 / (1 + abs(i - j)) for j in range(len(members))) for i in range(len(members)))
    alike = Group("g", members, {"explained": near, "cosine": near}, (0,) * len(members), None, 100)
    return Analysis(plan.layers, (alike,), (), "explained", 10_000)


def report_of(plan: Plan) -> Report:
    """A report with every part."""
    near, far = (Divergence(agreement, kl, kl / 2, 100) for agreement, kl in ((0.99, 1e-3), (0.97, 1e-2)))
    return Report(
        stages={"convert": far, "refit": near, "finetune": near},
        divergence=near,
        families=tuple(
            FamilyFit(each.members[0], dict.fromkeys(each.members, 0.01), None, 1.0) for each in plan.families
        ),
        repair=(StepResult("refit", True, far, near, 1.0, judged=(0.02, 0.01)),),
        finetune=FinetuneReport(
            *(100, 50, 100, (0.3, 0.2, 0.1), far, near, True),
            lr=1e-3,
            looks=tuple(Look(20 * n, 9.0 * n, 0.5 / n, 1 - 0.1 / n, 1e-3 / n, 0.6 / n) for n in (1, 2, 3)),
        ),
        notes=(plan.layers[0].name,),
        curve=Curve(10_000, tuple(Point(share, Totals(int(1e4 * share), 4, 4), 1e-3 / share) for share in (0.5, 0.2))),
    )


def material(names: tuple[str, ...] = ("stem", "a.conv1", "a.conv2", "b.conv1", "b.conv2")) -> Material:
    """All that a page of a folder can show."""
    plan = plan_of(names)
    report = report_of(plan)
    return Material(
        names[0],
        folder=names[0],
        plan=plan,
        report=report,
        recipe=f"scheme: cp # {names[0]}",
        files={names[0]: "0" * 64},
        command=f"kdna convert {names[0]}",
        machine={"processor": names[0]},
        curve=report.curve,
        analysis=analysis_of(plan),
        compared="Compared by their weights.",
    )
