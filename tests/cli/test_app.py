"""The command line: help for everything, results on stdout, the rest on stderr, exit codes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command import NET, convert, kdna
from support.commands import commands, parse
from support.places import ROOT
from support.tiny import net

import kdna_convert
from kdna_convert import __version__
from kdna_convert.cli.commands import env
from kdna_convert.core.errors import CODES, GuardError
from kdna_convert.inputs.models import load_model
from kdna_convert.inputs.recipe import bundled


def test_the_commands_are_those_of_the_product() -> None:
    assert {words[0] for words in commands()} == {
        *(
            "run",
            "analyze",
            "plan",
            "explore",
            "convert",
            "bank",
            "sweep",
            "finetune",
            "shrink",
            "freeze",
            "code",
            "build",
            "push",
            "pull",
            "diff",
            "patch",
            "eval",
            "report",
            "compare",
            "bench",
            "profile",
            "verify",
            "trust",
            "export",
        ),
        *("demo", "init", "recipe", "ls", "explain", "env"),
    }
    assert {words[1] for words in commands() if words[0] == "recipe"} == {"ls", "show", "cp", "validate", "schema"}


def test_a_command_is_a_file_and_its_report_has_the_same_name() -> None:
    cli = Path(kdna_convert.__file__).parent / "cli"
    files, reports = ({path.stem for path in (cli / kind).glob("[!_]*.py")} for kind in ("commands", "report"))
    named = {{"eval": "evaluate"}.get(words[0], words[0]) for words in commands()}
    assert files == named | {"completion", "console", "goals", "grouped", "help", "option_values", "options"}
    assert reports - named == {
        "curve",
        "divergence",
        "expected",
        "figures",
        "heatmap",
        "layers",
    }  # what several reports show


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_every_option_says_what_it_does(words: tuple[str, ...]) -> None:
    command = commands()[words]
    assert command.help
    assert command.help.split("\n\n")[0].endswith(".")
    undocumented = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert undocumented == []


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_an_option_means_the_same_in_every_command(words: tuple[str, ...]) -> None:
    """One spelling, one meaning: -o is the output, -d the data, -r the recipe, -q quiet, -v verbose."""
    short = {"-o": "output", "-d": "data", "-r": "recipe_name", "-q": "quiet", "-v": "verbose", "-h": "help"}
    for parameter in commands()[words].params:
        for flag in parameter.opts:
            assert short.get(flag, parameter.name) == parameter.name


def test_the_version_is_the_packages() -> None:
    assert kdna("--version").stdout == f"kdna {__version__}\n"


@pytest.mark.parametrize(
    "wrong", [("convolve",), ("plan",), ("ls", "moles"), ("explain", "KD999"), ("bench", "x", "--rounds", "1")]
)
def test_a_wrong_command_line_is_exit_code_two_with_nothing_on_stdout(wrong: tuple[str, ...]) -> None:
    done = kdna(*wrong)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: kdna" in done.stderr


def test_explain_knows_every_code() -> None:
    assert kdna("explain").stdout.count("KD") >= len(CODES)
    for form in ("KD301", "kd301", "301"):
        assert kdna("explain", form).stdout.startswith("KD301")


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (GuardError("KD801", "agreement 12 % is below 90 %"), 3, "kdna: error KD801: agreement 12 % is below 90 %\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_the_exit_code_follows_from_the_error(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, line: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(env, "_environment", fail)
    done = kdna("env")
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", line)


def test_an_internal_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "_environment", lambda: 1 / 0)
    done = kdna("env")
    assert done.exit_code == 1
    assert isinstance(done.exception, ZeroDivisionError)


def test_bundled_recipes_are_listed_shown_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(kdna("recipe", "ls", "--json").stdout) == list(bundled())
    assert json.loads(kdna("ls", "recipes", "--json").stdout) == list(bundled())
    for name, path in bundled().items():
        assert kdna("recipe", "show", name).stdout == path.read_text()
    assert kdna("recipe", "cp", "shared-cp").exit_code == 0
    assert Path("shared-cp.yaml").read_text() == bundled()["shared-cp"].read_text()
    assert kdna("recipe", "validate", "shared-cp.yaml").stdout == "shared-cp.yaml: valid\n"


def test_copying_a_recipe_does_not_overwrite_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("scheme: basis\n")
    done = kdna("recipe", "cp", "shared-cp", str(mine))
    assert (done.exit_code, mine.read_text()) == (2, "scheme: basis\n")
    assert "KD601" in done.stderr
    assert kdna("recipe", "cp", "shared-cp", str(mine), "--force").exit_code == 0
    assert mine.read_text() == bundled()["shared-cp"].read_text()


def test_validating_a_recipe_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[bool] = []

    def build(name: object, pretrained: bool) -> torch.nn.Module:
        downloads.append(pretrained)
        return net()

    monkeypatch.setattr("kdna_convert.inputs.models.build", build)
    assert kdna("recipe", "validate", "balanced", "--model", "resnet18").exit_code == 0
    assert downloads == [False]


def test_the_schema_of_a_recipe_is_json() -> None:
    assert "scheme" in json.loads(kdna("recipe", "schema").stdout)["properties"]


def test_verbose_shows_where_an_error_came_from() -> None:
    command = ("plan", "no-such-net", "--data-free", "-q")
    silent, verbose = kdna(*command), kdna(*command, "-v")
    assert silent.stderr.count("\n") == 1
    assert verbose.stderr.startswith("Traceback")
    assert verbose.stderr.endswith(silent.stderr)


# --- the whole job, on the tiny net


def printed(*arguments: object) -> Any:
    """What a command prints as JSON, once it has succeeded."""
    done = kdna(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_analyze_prints_every_layer_and_every_measure(images: Path) -> None:
    printed_json = printed("analyze", NET, "--data", images)
    assert [layer["name"] for layer in printed_json["layers"]][:2] == ["stem", "blocks.0.conv1"]
    assert set(printed_json["groups"][0]["similarities"]) == {"explained", "angles", "cka", "cosine"}
    assert "silhouette" in kdna("analyze", NET, "--data", images, "--metric", "cosine").stdout


def test_a_plan_is_exact_and_other_budgets_come_from_its_database(images: Path, tmp_path: Path) -> None:
    database = tmp_path / "database.json"
    question = ("plan", NET, "--data", images, "--database", database)
    half = printed(*question, "--target-params", "0.5")
    assert 0.4 < half["planned"]["params"] / half["original"]["params"] <= 0.5
    written = database.stat().st_mtime_ns
    small = printed(*question, "--target-bytes", "16kB")
    assert small["planned"]["bytes"] <= 16_000
    assert database.stat().st_mtime_ns == written


def test_convert_writes_the_planned_sizes_and_records_the_command(images: Path, folder: Path) -> None:
    planned = json.loads((folder / "plan.json").read_text())["planned"]
    assert (folder / "model.safetensors").stat().st_size == planned["bytes"]
    command = json.loads((folder / "report.json").read_text())["command"]
    assert command.startswith(f"kdna convert {NET} --data {images}")
    assert command in (folder / "README.md").read_text()


def test_a_dry_run_writes_nothing_and_plans_what_convert_does(images: Path, folder: Path, tmp_path: Path) -> None:
    planned = printed(*convert(images), "-o", tmp_path / "out", "--dry-run")
    assert planned == json.loads((folder / "plan.json").read_text())
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_plan_says_what_to_expect_and_calibrates_nothing(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdna_convert.api.cached_moments.collect", None)
    line = kdna("plan", NET, "--data", images, "--dry-run")
    assert line.exit_code == 0, line.stderr
    assert re.fullmatch(r"expected: about \d+ s and \d\.\d GB on this machine \(\d+ cores?\)\n", line.stdout)
    cost = printed("plan", NET, "--data", images, "--dry-run")
    assert cost["seconds"] == pytest.approx(sum(cost["stages"].values()))
    assert "repair" in cost["stages"]


def test_a_plan_edited_by_hand_is_what_is_converted(images: Path, folder: Path, tmp_path: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["families"][0]["options"]["rank"] = 5
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    by_plan = ("convert", NET, "--data", images, "--plan", tmp_path / "plan.json")
    foretold = printed(*by_plan, "--dry-run")
    assert foretold["families"][0]["options"]["rank"] == 5
    assert foretold["planned"]["params"] < plan["planned"]["params"]
    printed(*by_plan, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == foretold["planned"]["bytes"]


def test_conversion_is_reproducible_to_the_bit(images: Path, folder: Path, tmp_path: Path) -> None:
    assert kdna(*convert(images), "-o", tmp_path / "again").exit_code == 0
    for name in ("model.safetensors", "plan.json", "recipe.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_eval_prints_the_promised_keys_in_order(images: Path, folder: Path) -> None:
    keys = ["top1", "top5", "images", "agreement", "kl", "params", "bytes", "macs"]
    converted, original = printed("eval", folder, "--data", images), printed("eval", NET, "--data", images)
    assert list(converted)[:8] == list(original)[:8] == keys
    assert converted["images"] == original["images"] == 60
    assert 0 <= converted["agreement"] <= 1
    assert original["agreement"] is None
    assert converted["bytes"] == (folder / "model.safetensors").stat().st_size


def test_bench_times_every_form_of_a_converted_net(folder: Path) -> None:
    rows = printed("bench", folder, "--rounds", "3", "--threads", "1")
    assert [row["name"] for row in rows] == ["original", "converted", "folded", "factored"]
    assert rows[0]["macs"] == rows[2]["macs"]
    assert "Sharing alone does not reduce MACs" in kdna("bench", folder, "--rounds", "3").stdout


def test_bench_times_the_forms_in_another_runtime(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    rows = printed("bench", folder, "--rounds", "3", "--runtime", "onnxruntime")
    assert [row["name"] for row in rows] == ["original", "folded", "factored"]
    assert all(row["ms"] > 0 for row in rows)
    assert rows[0]["device"].startswith("onnxruntime ")


def test_a_profile_is_measured_once_and_makes_a_plan_for_a_latency(tmp_path: Path) -> None:
    times = ("--profile", tmp_path / "times.jsonl", "--runtime", "torch", "--threads", "1")
    measured = printed("profile", NET, *times, "--schemes", "cp")
    assert {chain["scheme"] for row in measured["rows"] for chain in row["chains"]} == {"cp"}
    before = (tmp_path / "times.jsonl").read_text()
    assert printed("profile", NET, *times, "--schemes", "cp") == measured
    assert (tmp_path / "times.jsonl").read_text() == before
    table = kdna("profile", NET, *times, "--schemes", "cp").stdout
    assert "of net" in table
    assert "the net: " in table
    plan = printed("plan", NET, "--recipe", "shared-cp", "--target-latency", "1s", *times)
    assert plan["planned"]["latency"] <= 1e9
    assert plan["original"]["latency"] == measured["net"]
    assert plan["timed"] == measured["timed"]


def test_a_conversion_for_a_latency_is_timed_at_its_end(tmp_path: Path) -> None:
    times = ("--profile", tmp_path / "times.jsonl", "--runtime", "torch", "--threads", "1")
    asked = ("--recipe", "shared-cp", "--target-latency", "1s", "-o", tmp_path / "out")
    report = printed("convert", NET, *asked, *times)
    assert report["latency"]["measured"] > 0
    assert kdna_convert.open_folder(tmp_path / "out").report.latency is not None
    assert not kdna("verify", tmp_path / "out").exit_code


def test_a_profile_of_another_machine_is_refused_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "times.jsonl"
    file.write_text('{"machine": "a board", "runtime": "torch", "version": "1", "threads": 1, "net": "x", "ns": 5}\n')
    done = kdna("plan", "no_such_net", "--target-latency", "0.5", "--profile", file, "--runtime", "torch")
    assert done.exit_code == 2
    assert "error KD510" in done.stderr
    assert "--other-machine" in done.stderr


def test_a_verified_folder_exports_and_loads_strictly(folder: Path, tmp_path: Path) -> None:
    assert all(check["ok"] for check in printed("verify", folder))
    written = printed("export", folder, "--to", "merged", "-o", tmp_path / "merged.safetensors")
    state = load_file(written["file"])
    original = load_model(NET).model
    assert set(state) == set(original.state_dict())
    original.load_state_dict(state, strict=True)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(original(x), kdna_convert.load(folder)(x), atol=1e-5)


def test_finetune_writes_a_new_folder_and_records_the_command(images: Path, folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "tuned"
    done = kdna("finetune", folder, "--data", images, "--epochs", "1", "-o", out)
    assert done.exit_code == 0, done.stderr
    assert "trainable params: " in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert kdna("verify", out).exit_code == 0
    commands = json.loads((out / "report.json").read_text())["command"].splitlines()
    assert [command.split()[1] for command in commands] == ["convert", "finetune"]


def test_results_go_to_stdout_and_everything_else_to_stderr(images: Path, tmp_path: Path) -> None:
    done = kdna(*convert(images), "-o", tmp_path / "out")
    assert "parameters kept" in done.stdout
    assert "parameters kept" not in done.stderr
    assert "kdna eval" in done.stderr
    assert "\x1b[" not in done.stdout + done.stderr
    assert kdna(*convert(images), "-o", tmp_path / "quiet", "-q").stderr == ""


@pytest.mark.parametrize(
    "command",
    [("convert",), ("code", "--codec", "fp16"), ("shrink", "--target-params", "0.5"), ("finetune", "--steps", "1")],
)
def test_the_next_commands_parse_and_never_measure_on_the_images_that_were_used(
    command: tuple[str, ...], images: Path, folder: Path, tmp_path: Path
) -> None:
    name, *options = command
    before = convert(images) if name == "convert" else [name, folder, "--data", images, *options]
    done = kdna(*before, "-o", tmp_path / "a folder")
    assert done.exit_code == 0, done.stderr
    hints = done.stderr[done.stderr.index("written to") :]
    following = [line.split("  (")[0] for line in re.findall(r"kdna (\w.*)", hints)]
    for line in following:
        parse(line)
    measuring = [line for line in following if line.startswith("eval")]
    assert measuring == [f"eval '{tmp_path / 'a folder'}' --data VALIDATION"]
    assert "folded=True" in hints


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [words for words in commands() if f"kdna {words[0]}" not in readme] == []


def test_the_coverage_of_models_is_listed_and_nothing_elses() -> None:
    listed = json.loads(kdna("ls", "models", "bat_*", "--coverage", "--json").stdout)
    assert listed == {"bat_resnext26ts": "converts"}
    assert "bat_resnext26ts" in kdna("ls", "models", "bat_*", "--coverage").stdout
    assert kdna("ls", "schemes", "--coverage").exit_code == 2
