"""`kdna compare`: budgets hold, counts are those of real files, and a failing tool gives a row with its problem."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from support import task_nets
from support.command import NET, kdna
from support.terminal import printed
from support.tiny import net as random_net
from support.tiny import noise
from torch import Tensor, nn

from kdna_convert.api.compare import PEERS, Comparison, ComparisonRow, compare
from kdna_convert.api.compare.child import PeerError, run
from kdna_convert.api.compare.compare_tools import rungs_of
from kdna_convert.api.compare.evaluate_nets import Entry, with_accuracy
from kdna_convert.api.compare.peers import Peer, peers_of
from kdna_convert.api.compare.reestimate_norms import has_statistics, reestimate
from kdna_convert.api.compare.tool_run import ToolRun, count, written_bytes
from kdna_convert.api.compare.tools.largest_share import largest_share
from kdna_convert.api.compare.tools.rounding import round_channels
from kdna_convert.api.compare.worker import IMAGES, PROBLEM, TOOL_RUN, main, make
from kdna_convert.cli.report.compare import comparison_report, plot, verdict
from kdna_convert.core.comparison import Rung
from kdna_convert.core.errors import ModelError, PlanError
from kdna_convert.inputs.data import as_images
from kdna_convert.inputs.recipe import Recipe, load_recipe
from kdna_convert.tasks import CLASSIFY

QUICK = ["calibration.images=20", "calibration.heldout=10", "calibration.batch=10", "fit.sweeps=3"]
LAYERS = tuple(f"blocks.{block}.conv{half}" for block in (0, 1) for half in (1, 2))
CRASHING = "import os\n\ndef net():\n    os._exit(7)\n"


def quick() -> Recipe:
    return load_recipe("shared-cp", QUICK)


def net() -> nn.Module:
    """The tiny net, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return random_net().eval()


def tool_run(peer: str, rung: Rung | None = None, model: str | None = NET) -> ToolRun:
    return ToolRun(peer, rung, model, None, None, LAYERS, quick())


def laid(folder: Path) -> Path:
    torch.save(noise(30), folder / IMAGES)
    return folder


# Every tool, held to its budget


@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if "params" in peer.axes])
def test_a_tool_keeps_to_the_parameters_it_is_given_and_uses_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if PEERS[name].missing:
        pytest.skip(str(PEERS[name].missing))
    monkeypatch.chdir(tmp_path)
    original = net()
    rung = Rung("params", 0.5, int(0.5 * count(original)))
    result = make(copy.deepcopy(original), noise(30), tool_run(name, rung))
    assert result.plain.params is not None
    assert 0.85 * rung.limit < result.plain.params <= rung.limit
    assert result.plain.net(noise(2)).shape == original(noise(2)).shape
    assert (result.renormed is not None) == PEERS[name].renorm


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["nncodec", "kdna"])
def test_a_tool_keeps_to_the_bytes_it_is_given(name: str) -> None:
    if PEERS[name].missing:
        pytest.skip(str(PEERS[name].missing))
    original = net()
    result = make(
        copy.deepcopy(original), noise(30), tool_run(name, Rung("bytes", 0.75, int(0.75 * written_bytes(original))))
    )
    assert result.plain.bytes is not None
    assert result.plain.bytes <= 0.75 * written_bytes(original)


@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_runs_its_own_file() -> None:
    if PEERS["onnxruntime"].missing:
        pytest.skip(str(PEERS["onnxruntime"].missing))
    original = net()
    result = make(copy.deepcopy(original), noise(30), tool_run("onnxruntime"))
    assert result.plain.bytes == len(result.plain.net.graph)  # type: ignore[arg-type]
    difference = result.plain.net(noise(5)) - original(noise(5))
    assert 0 < difference.norm() < 0.2 * original(noise(5)).norm()


@given(limit=st.integers(1, 5000), slope=st.integers(1, 3000))
def test_the_share_that_is_found_fits_and_the_next_does_not(limit: int, slope: int) -> None:
    def size(share: float) -> int:
        return round(slope * share) + 1

    if size(0.001) > limit:
        with pytest.raises(PlanError, match="KD501"):
            largest_share(size, limit)
        return
    share = largest_share(size, limit)
    assert size(share) <= limit
    assert share == 1 or size(share + 0.001) > limit


# Counts


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("int8", torch.int8)])
def test_the_bytes_of_a_rounded_net_are_those_of_a_real_file(name: str, dtype: torch.dtype) -> None:
    result = make(net(), noise(30), tool_run(name)).plain
    state = result.net.state_dict()
    if name == "fp16":
        file = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    else:
        kernels = [key for key, value in state.items() if value.ndim > 1]
        scales = {f"{key}_scale": torch.zeros(len(state[key])) for key in kernels}
        file = {**{key: value.to(dtype) if key in kernels else value for key, value in state.items()}, **scales}
    assert result.bytes == len(save(file, {"format": "pt"}))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), bits=st.sampled_from([4, 8]))
def test_rounding_is_to_the_nearest_of_few_values_a_channel(seed: int, bits: int) -> None:
    weight = torch.randn((5, 3, 3, 3), generator=torch.Generator().manual_seed(seed))
    rounded = round_channels(weight, bits)
    step = weight.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
    assert ((rounded - weight).flatten(1).abs() <= 0.5001 * step[:, None]).all()
    assert all(len(channel.unique()) < 2**bits for channel in rounded)


def test_renormed_statistics_are_those_of_the_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    with torch.no_grad():
        outputs = model[0](noise(30))
    reestimate(model, noise(30))
    torch.testing.assert_close(model[1].running_mean, outputs.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, outputs.var((0, 2, 3)))
    assert not any(module.training for module in model.modules())
    assert model[1].momentum == nn.BatchNorm2d(4).momentum
    assert not has_statistics(nn.Conv2d(3, 4, 3))


def test_a_budget_is_a_share_of_the_net_or_a_size_of_its_file() -> None:
    original = net()
    half, fourteenth, small = rungs_of(original, [0.5], ["1/14", "3kB"])
    assert half == Rung("params", 0.5, count(original) // 2)
    assert (fourteenth.limit, small.limit) == (written_bytes(original) // 14, 3000)
    assert half.label == "50 % of the parameters"
    assert fourteenth.label == f"{written_bytes(original) // 14:,} bytes, 1/14 of the file"
    for at, sizes in (([1.5], None), (None, ["1GB"]), (None, ["1/0"]), (None, ["much"])):
        with pytest.raises(PlanError, match="KD506"):
            rungs_of(original, at, sizes)


# What fails is a row


def test_a_tool_that_is_not_installed_gives_a_row_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "gone", Peer("a tool", PEERS["fp16"].tool, needs=("no_such_library",)))
    comparison = compare(NET, data=noise(30), eval=noise(8, seed=1), peers=["gone"], recipe=quick())
    original, gone = comparison.rows
    assert original.agreement is None
    assert gone.problem == "no_such_library not installed: pip install 'kdna-convert[compare]'"
    assert (gone.params, gone.agreement) == (None, None)


def test_a_process_that_dies_gives_a_row_with_a_problem(tmp_path: Path) -> None:
    crashing = tmp_path / "crashing.py"
    crashing.write_text(CRASHING)
    with pytest.raises(PeerError, match="its process ended with code 7"):
        run(tool_run("fp16", model=f"{crashing}:net"), laid(tmp_path), 60)


def test_an_exception_in_the_process_gives_its_message(tmp_path: Path) -> None:
    (laid(tmp_path) / TOOL_RUN).write_bytes(pickle.dumps(tool_run("fp16", model="nowhere.py:net")))
    main(tmp_path)
    assert (tmp_path / PROBLEM).read_text() == "KD302: nowhere.py: no such file"


def test_a_tool_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="stopped after 0 s; raise --time-limit"):
        run(tool_run("fp16"), laid(tmp_path), 0.1)


def test_a_net_that_fails_on_the_images_leaves_the_others_measured() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not these")

    class Sick(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 5), torch.nan)

    row = ComparisonRow("x", "x", None)
    nets = (net(), Picky(), net(), Sick())
    _, picky, same, sick = with_accuracy([Entry(row, each) for each in nets], as_images(noise(8)), CLASSIFY, None, None)
    assert picky.row.problem == "RuntimeError on the images: not these"
    assert sick.row.problem == "its outputs are not finite"
    assert (picky.net, sick.net) == (None, None)
    assert same.row.agreement == 1.0
    assert same.row.top1 is None  # no labels


def test_an_unknown_peer_is_refused_with_a_close_name() -> None:
    assert peers_of(None) == list(PEERS)
    assert peers_of(["kdna", "cp"]) == ["cp", "kdna"]
    with pytest.raises(PlanError, match=r"KD508: no peer 'nncodek'; did you mean nncodec\?"):
        peers_of(["nncodek"])


def test_a_module_that_cannot_be_pickled_is_refused_with_a_way_out() -> None:
    model = net()
    model.stem.register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match=r"KD302: Net cannot be pickled .*pass path"):
        compare(model, data=noise(30), eval=noise(8), peers=["fp16"], recipe=quick())


def test_kdnas_own_process_picks_the_same_outputs(tmp_path: Path) -> None:
    picked = replace(
        tool_run("kdna", Rung("params", 0.6, 0), f"{task_nets.__file__}:heads"), outputs=f"{task_nets.__file__}:broken"
    )
    (laid(tmp_path) / TOOL_RUN).write_bytes(pickle.dumps(picked))
    main(tmp_path)
    assert (tmp_path / PROBLEM).read_text() == "KD314: --outputs broken: KeyError: 'nothing'"
    with pytest.raises(ModelError, match=r"KD314: outputs cannot be pickled"):
        compare(net(), data=noise(30), eval=noise(8), peers=["kdna"], recipe=quick(), outputs=lambda returned: returned)


# The whole way


def test_the_command_compares_on_images_of_its_own(images: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("scheme: cp\ncalibration: {images: 20, heldout: 10, batch: 10}\nfit: {sweeps: 3}\n")
    shared = ["--data", images, "--eval", images, "--recipe", recipe, "--at", "0.7", "--bytes", "1/3", "--limit", "20"]
    done = kdna("compare", NET, *shared, "--peers", "kdna", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    original, own, coded = printed["rows"]
    assert [row["problem"] for row in printed["rows"]] == [None, None, None]
    assert 0.9 * printed["rungs"][1]["limit"] < coded["bytes"] <= printed["rungs"][1]["limit"]
    assert own["params"] <= printed["rungs"][0]["limit"] == int(0.7 * original["params"])
    assert own["bytes"] < original["bytes"]
    assert own["kl"] > 0
    assert all(row["ms"] > 0 and row["top1"] is not None for row in printed["rows"])
    assert (printed["images"], printed["calibration"]) == (20, 30)
    assert "every tool may have calibrated on them" in done.stderr


def test_the_command_needs_images_that_are_not_used_for_calibration(images: Path, tmp_path: Path) -> None:
    done = kdna("compare", NET, "--data", images)
    assert done.exit_code == 2
    assert "--eval" in done.stderr
    assert kdna("compare", NET, "--data", images, "--eval", images, "--plot", tmp_path / "x.txt").exit_code == 2


# The report


HALF = Rung("params", 0.5, 426_509)
ROWS = (
    ComparisonRow("original", "original", None, 853_018, 1.0, 3_457_208, 125_485_706, 18.2, top1=0.933),
    ComparisonRow("int8", "int8, rounded", None, 853_018, 1.0, 930_000, 125_485_706, 18.1, 0.932, 0.991, 0.004, 0.1),
    ComparisonRow(
        "cp", "tensorly CP +BN", HALF, 426_000, 0.499, 1_764_836, 63_000_000, 91.04, 0.91, 0.941, 0.101, 12.0
    ),
    ComparisonRow(
        "aimet", "AIMET spatial SVD", HALF, problem="aimet_torch not installed: pip install 'kdna-convert[compare]'"
    ),
    ComparisonRow("kdna", "kdna", HALF, 426_307, 0.4998, 1_754_836, 125_485_706, 18.2, 0.932, 0.9778, 0.0295, 118.8),
)
FOUND = Comparison("resnet56", 2000, 1500, "cpu, 1 thread", (HALF,), ROWS)


def test_the_table_fits_a_terminal(golden: object) -> None:
    text = printed(comparison_report(FOUND))
    assert max(map(len, text.splitlines())) <= 80
    golden("compare", text)  # type: ignore[operator]


def test_the_verdict_names_the_best_net_or_how_far_kdna_is_behind() -> None:
    *_, cp, _, own = ROWS
    assert verdict(ROWS[2:]) == "kdna is ahead of all others by agreement and by KL"
    better = replace(cp, agreement=0.99, kl=0.01)
    assert verdict([better, own]) == "kdna is behind tensorly CP +BN by 1.22 points"
    assert verdict([replace(cp, kl=0.01), own]) == "kdna is behind tensorly CP +BN by KL"
    assert verdict([own]) is None
    assert verdict([cp, replace(own, agreement=None)]) is None


@pytest.mark.filterwarnings("ignore")
def test_the_same_rows_are_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    plot(FOUND, first)
    plot(FOUND, second)
    assert first.read_bytes() == second.read_bytes()
    assert "tensorly CP +BN" in first.read_text()
    plot(FOUND, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
