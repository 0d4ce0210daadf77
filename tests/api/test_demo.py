"""The demo runs every stage, and its table agrees with the folder that it writes."""

import copy
import json
from pathlib import Path

import pytest

import kdna_convert
from kdna_convert.api.demo import KEEP, MODEL, Demo, run
from kdna_convert.core.errors import FolderError
from kdna_convert.core.specs import to_json
from kdna_convert.inputs.digits import WEIGHTS, digits
from kdna_convert.inputs.models import load_model
from kdna_convert.network.derive import factor
from kdna_convert.network.totals import totals
from kdna_convert.stages.evaluate.accuracy import evaluate


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run(tmp_path_factory.mktemp("demo") / "digits")


def test_every_check_passes(demo: Demo) -> None:
    assert len(demo.checks) > 5
    assert all(check.ok for check in demo.checks), demo.checks


def test_it_keeps_a_quarter_of_the_parameters_and_loses_less_than_one_point(demo: Demo) -> None:
    original, converted, tuned, _ = demo.rows
    assert converted.params <= KEEP * original.params
    assert converted.bytes < 0.3 * original.bytes
    assert original.accuracy > 0.99
    assert tuned.accuracy > original.accuracy - 0.01
    assert tuned.accuracy > converted.accuracy - 0.002


def test_the_fine_tune_halves_the_divergence_from_the_original(demo: Demo) -> None:
    assert demo.divergence["fine-tuned"].kl < 0.5 * demo.divergence["converted"].kl


def test_the_table_agrees_with_the_folder(demo: Demo) -> None:
    assert demo.folder is not None
    tuned, factored = demo.rows[2:]
    model = kdna_convert.load(demo.folder)
    test = digits("test")
    assert evaluate(model, [test]).top1 == tuned.accuracy
    assert (Path(demo.folder) / "model.safetensors").stat().st_size == tuned.bytes
    assert sum(parameter.numel() for parameter in model.parameters()) == tuned.params
    assert totals(factor(copy.deepcopy(model)), test[0]).macs == factored.macs < tuned.macs


def test_the_first_row_is_the_bundled_net(demo: Demo) -> None:
    row, test = demo.rows[0], digits("test")
    evaluation = evaluate(load_model(MODEL, checkpoint=str(WEIGHTS)).model, [test])
    assert (row.params, row.bytes, row.macs, row.accuracy) == (
        evaluation.params,
        evaluation.bytes,
        evaluation.macs,
        evaluation.top1,
    )


def test_the_eight_equal_layers_make_one_family(demo: Demo) -> None:
    assert [len(family.members) for family in demo.plan.families] == [8]
    assert [len(group.members) for group in demo.analysis.groups] == [8]


def test_the_demo_as_json_has_every_row(demo: Demo) -> None:
    assert [row["name"] for row in json.loads(to_json(demo))["rows"]] == [row.name for row in demo.rows]


def test_an_existing_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="KD601"):
        run(tmp_path)
