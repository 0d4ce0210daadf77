"""report.json: what a stage writes is read back as it was, and folders of older versions are too."""

import json
from dataclasses import replace

import pytest
from support.places import TESTS

from kdna_convert.core.measurements import Divergence, Evaluation
from kdna_convert.network.folder.report import (
    CodeReport,
    FinetuneReport,
    FreezeReport,
    MaxDropReport,
    Report,
    RunReport,
    ShrinkReport,
    StageSummary,
    StepResult,
    Trial,
    from_plain,
    to_plain,
)

SEEN = Divergence(0.97, 0.03, 0.02, 500)
COST = Evaluation(0.9, 0.99, 100, 0.97, 0.03, 1000, 4000, 9000)
STEP = StepResult("refit", True, SEEN, None, 1.5, {"conv": "KD120"}, (0.1, None))
ROWS = (StageSummary("convert", 1000, 4000, 0.97, 0.03, 500, seconds=1.0),)
PARTS = {
    "max_drop": MaxDropReport(1.0, "top-1", (Trial(0.9, 0.5),)),
    "code": CodeReport("entropy", 400, 410, "the original", 1e-4, 2.0),
    "finetune": FinetuneReport(3, 10, 20, (0.1,), SEEN, None, True, settings={"steps": 3, "clip": None}),
    "shrink": ShrinkReport(1000, 30, repair=(STEP,), params=800),
    "freeze": FreezeReport(SEEN, None, None, 30, 1.0),
    "run": RunReport("0", True, ROWS, None, COST, COST),
    "command": "kdna convert net -o out",
}


@pytest.mark.parametrize("path", sorted(TESTS.glob("folders/*/report.json")), ids=lambda path: path.parent.name)
def test_an_old_report_is_read_and_written_to_the_byte(path: object) -> None:
    text = path.read_text()  # type: ignore[attr-defined]
    assert json.dumps(to_plain(from_plain(json.loads(text))), indent=2) + "\n" == text


@pytest.mark.parametrize("name", PARTS)
def test_every_part_survives_json(name: str) -> None:
    report = replace(Report(stages={"convert": SEEN}, divergence=SEEN, repair=(STEP,)), **{name: PARTS[name]})
    again = from_plain(json.loads(json.dumps(to_plain(report))))
    assert again == report
    assert again.order == report.order


def test_parts_of_a_report_are_added_last_and_removed() -> None:
    report = Report()
    for name in ("run", "command", "finetune", "code"):
        report = replace(report, **{name: PARTS[name]})
    assert list(to_plain(report))[-4:] == ["run", "command", "finetune", "code"]
    again = replace(replace(report, code=None), code=PARTS["code"], run=None)
    assert list(to_plain(again))[-3:] == ["command", "finetune", "code"]
    assert "run" not in to_plain(again)


def test_keys_of_another_version_are_dropped_and_missing_ones_have_their_defaults() -> None:
    report = from_plain({"command": "kdna convert", "color": "red", "finetune": {**PLAIN_TUNING, "mood": 1}})
    assert report.command == "kdna convert"
    assert report.finetune == FinetuneReport(3, 10, 20, (0.1,), None, None, False)
    assert "color" not in to_plain(report)
    assert report.stages == {}


PLAIN_TUNING = {"steps": 3, "trained": 10, "params": 20, "losses": [0.1], "before": None, "after": None, "kept": False}


def test_values_that_were_not_measured_have_no_key() -> None:
    assert list(to_plain(Report(code=CodeReport("int8", 400, None)))["code"]) == ["codec", "bytes", "target", "seconds"]
    assert list(to_plain(Report(run=RunReport("0")))["run"]) == ["mark", "shares", "stages"]
    assert to_plain(Report(run=RunReport("0", was_there=True)))["run"]["was_there"] is True
    assert next(iter(to_plain(Report(shrink=PARTS["shrink"]))["shrink"])) == "from"  # type: ignore[arg-type]


def test_a_stage_that_was_measured_is_the_last_divergence() -> None:
    report = Report(stages={"convert": SEEN}, divergence=SEEN).with_stage("code", replace(SEEN, kl=0.05))
    assert list(report.stages) == ["convert", "code"]
    assert report.divergence == report.stages["code"]
    assert report.with_stage("finetune", None) == report


def test_commands_are_lines() -> None:
    assert Report().with_command("kdna convert").with_command("kdna code").command == "kdna convert\nkdna code"
