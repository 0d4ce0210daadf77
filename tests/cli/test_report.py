"""Reports at 80 columns, compared character by character without color; layout with color."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.terminal import printed
from torch import nn

from kdna_convert.api.demo import Demo, DemoRow
from kdna_convert.cli.report.analyze import analysis_report
from kdna_convert.cli.report.bench import bench_table
from kdna_convert.cli.report.convert import conversion_report
from kdna_convert.cli.report.curve import curve_report, plot_curve
from kdna_convert.cli.report.demo import demo_report
from kdna_convert.cli.report.divergence import divergence_table
from kdna_convert.cli.report.evaluate import evaluation_table
from kdna_convert.cli.report.export import export_lines
from kdna_convert.cli.report.figures import totals
from kdna_convert.cli.report.finetune import finetune_report
from kdna_convert.cli.report.heatmap import heatmap
from kdna_convert.cli.report.layers import layer_table
from kdna_convert.cli.report.plan import plan_report
from kdna_convert.cli.report.run import run_report
from kdna_convert.cli.report.verify import check_table
from kdna_convert.core.amounts import percent, short, size
from kdna_convert.core.measurements import Analysis, Curve, Divergence, Evaluation, Group, Point
from kdna_convert.core.specs import DataConfig, Family, Layer, ModelRef, Plan, Route, Totals
from kdna_convert.network.folder import Check, Conversion
from kdna_convert.network.folder.report import FinetuneReport, Report, RunReport, StageSummary, StepResult
from kdna_convert.stages.evaluate.timing import Timing
from kdna_convert.stages.export import Exported

Golden = Callable[[str, str], None]

BEFORE = Totals(params=855_770, bytes=3_456_000, macs=125_485_706)
AFTER = Totals(params=427_314, bytes=1_734_120, macs=70_123_456)


def layer(name: str, shape: tuple[int, ...] = (64, 64, 3, 3), **changes: object) -> Layer:
    return Layer(name=name, kind="Conv2d", shape=shape, in_positions=64, out_positions=64, **changes)  # type: ignore[arg-type]


LAYERS = (
    layer("conv1", (16, 3, 3, 3), reason="KD101"),
    *(layer(f"layer3.{block}.conv{half}") for block in range(1, 4) for half in (1, 2)),
    layer("stages.2.blocks.11.conv_dw_with_a_long_name", (192, 1, 3, 3), groups=192, reason="KD103"),
    Layer(name="linear", kind="Linear", shape=(10, 64), in_positions=1, out_positions=1, reason="KD101"),
)
PLAN = Plan(
    model=ModelRef(name="examples/cifar_resnet.py:resnet56"),
    families=(
        Family(scheme="cp", members=tuple(row.name for row in LAYERS[1:5]), options={"rank": 96}),
        Family(scheme="lowrank", members=(LAYERS[5].name,), options={"rank": 24}),
    ),
    layers=LAYERS,
    original=BEFORE,
    planned=AFTER,
    stored={"layer3.1.conv1": 73_000, "layer3.3.conv1": 15_360},
    predicted={"layer3.1.conv1": 0.009, "layer3.3.conv1": 0.003},
    routes=(Route("se", (LAYERS[5],)),),
    unrouted={"linear": "KD131"},
    routed=2112,
)


def similar(members: int) -> list[list[float | None]]:
    """Two blocks, fading with distance, one value unknown."""
    matrix: list[list[float | None]] = [
        [
            math.exp(-abs(i - j) / members) * (1.0 if (i < members // 2) == (j < members // 2) else 0.4)
            for j in range(members)
        ]
        for i in range(members)
    ]
    matrix[0][-1] = None
    return matrix


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (999_600, "1 M"), (125_485_706, "125 M"), (1.8e9, "1.8 G")],
)
def test_short_numbers_keep_three_digits(number: float, text: str) -> None:
    assert short(number) == text


def test_sizes_and_shares() -> None:
    assert [size(12), size(1_234_567), percent(0.5), percent(1 / 3, 2)] == ["12 B", "1.23 MB", "50.0 %", "33.33 %"]


def test_layer_table(golden: Golden) -> None:
    golden("layers", printed(layer_table(LAYERS, 855_770)))


def test_plan_report(golden: Golden) -> None:
    golden("plan", printed(plan_report(PLAN)))


def test_plan_report_with_what_is_expected(golden: Golden) -> None:
    golden("plan-expected", printed(plan_report(replace(PLAN, routes=(), unrouted={}), repaired=True)))
    assert "expected" not in printed(plan_report(replace(PLAN, predicted={}), repaired=True))


def curve_of(measured: bool) -> Curve:
    """Five plans from near the original to far from it, the last beyond what any conversion was measured at."""
    rows = [(0.9, 0.0004), (0.7, 0.004), (0.5, 0.02), (0.3, 0.06), (0.1, 0.9)]
    points = tuple(
        Point(
            share,
            Totals(round(share * 855_770), round(share * 3_456_000), round(share * 125_485_706)),
            error,
            Divergence(1 - 4 * error, 2 * error, error, 500) if measured and share > 0.2 else None,
        )
        for share, error in rows
    )
    return Curve(855_770, points, 1.0 if measured else None)


@pytest.mark.parametrize("measured", [False, True])
def test_curve_report(golden: Golden, measured: bool) -> None:
    golden(f"curve{'-measured' * measured}", printed(curve_report(curve_of(measured))))


def test_a_curve_without_a_good_row_recommends_none() -> None:
    curve = replace(curve_of(False), points=curve_of(False).points[3:])
    assert "No row agrees" in printed(curve_report(curve))
    assert "recommended" not in printed(curve_report(curve))


def test_a_curve_is_drawn_the_same_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        plot_curve(curve_of(True), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "expected" in (tmp_path / "a.svg").read_text()
    far = replace(curve_of(False), points=curve_of(False).points[4:])
    plot_curve(far, tmp_path / "none.png")  # nothing to draw


@pytest.mark.parametrize("scheme", ["cp", "lowrank", "codebook"])
@pytest.mark.parametrize("pointwise", [0.9, 0.1])
def test_a_plan_that_loses_most_at_1x1_names_the_recipe_that_does_not(scheme: str, pointwise: float) -> None:
    layers = (layer("wide"), layer("narrow", (64, 64, 1, 1)))
    families = (Family("cp", ("wide",), {"rank": 9}), Family(scheme, ("narrow",), {"rank": 9}))
    plan = replace(PLAN, layers=layers, families=families, stored={"wide": 9, "narrow": 9}, routes=(), unrouted={})
    text = printed(plan_report(replace(plan, predicted={"wide": 1 - pointwise, "narrow": pointwise})))
    assert ("--recipe accurate" in text) == (pointwise > 0.5 and scheme != "codebook")


def test_totals(golden: Golden) -> None:
    golden("totals", printed(totals(BEFORE, AFTER)))


def test_divergence_table(golden: Golden) -> None:
    stages = {
        "shared fit": Divergence(agreement=0.948, kl=0.0712, logit_error=0.0513, images=500),
        "sequential refit": Divergence(agreement=0.972, kl=0.0301, logit_error=0.0198, images=500),
    }
    golden("divergence", printed(divergence_table(stages)))


def test_analysis_report(golden: Golden) -> None:
    members = tuple(row.name for row in LAYERS[1:7])
    matrix = tuple(tuple(row) for row in similar(6))
    unknown = tuple((None,) * 6 for _ in range(6))
    group = Group(
        key="(64, 9)",
        members=members,
        similarities={"explained": matrix, "angles": matrix, "cka": unknown, "cosine": matrix},
        clusters=(0, 0, 0, 1, 1, 1),
        silhouette=0.4321,
        params=221_184,
    )
    analysis = Analysis(layers=LAYERS, groups=(group,), alone=("layer2.0.conv1",), metric="explained", params=855_770)
    golden("analysis", printed(analysis_report(analysis)))


def test_bench_table(golden: Golden) -> None:
    def timing(name: str, ms: float, params: int) -> Timing:
        return Timing(
            name=name,
            params=params,
            bytes=4 * params + 30_000,
            macs=125_485_706,
            ms=ms,
            spread_ms=ms / 50,
            throughput=1000 / ms,
            ratio=ms / 8.0,
            batch=1,
            rounds=30,
            device="cpu, 2 threads",
        )

    rows = [timing("original", 8.0, 855_770), timing("converted", 9.25, 427_314), timing("folded", 8.01, 855_770)]
    golden("bench", printed(bench_table(rows)))


def test_evaluation_table(golden: Golden) -> None:
    full = Evaluation(0.9264, 0.9978, 5000, 0.9612, 0.0312, 427_314, 1_734_120, 125_485_706, 0.02)
    bare = Evaluation(None, None, 1000, None, None, 427_314, 1_734_120, 125_485_706)
    golden("evaluation", printed(evaluation_table(full)) + "\n" + printed(evaluation_table(bare)))


def test_check_table(golden: Golden) -> None:
    whole = [Check("model.safetensors", True, "its sha256 is the recorded one"), Check("folds", True, "1.2e-06 apart")]
    broken = [
        *whole,
        Check("plan.json", False, "out/plan.json is damaged: its sha256 is not the recorded one; restore it"),
    ]
    claims = [*whole, Check("figures", True, "not checked: report.json claims 98.0 % agreement", checked=False)]
    golden("checks", "\n".join(printed(check_table(checks)) for checks in (whole, broken, claims)))


@pytest.mark.parametrize("members", [6, 20, 30, 90])
def test_heatmap(golden: Golden, members: int) -> None:
    names = [f"layer3.{index // 2}.conv{index % 2 + 1}" for index in range(members)]
    golden(f"heatmap{members}", printed(heatmap(names, similar(members), range(members))))


@pytest.mark.parametrize("members", [1, 2, 20, 21, 60, 61, 200])
def test_a_heatmap_fits_eighty_columns_with_and_without_color(members: int) -> None:
    map_ = heatmap(["a.rather.long.name.of.a.layer"] * members, similar(members), range(members))
    plain = printed(map_).splitlines()
    assert max(map(len, plain)) <= 80
    assert len(plain) == min(members, 60) + 1
    assert "\x1b[" in printed(map_, color="truecolor")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_report_is_cut_off(width: int) -> None:
    text = printed(layer_table(LAYERS, 855_770), width)
    assert max(map(len, text.splitlines())) <= width
    assert "".join(text.split()).count("conv_dw") == 1
    assert "…" not in text


SEEN = Divergence(0.972, 0.0301, 0.0198, 500)


def converted(**parts: Any) -> Conversion:
    return Conversion(nn.Identity(), PLAN, DataConfig(), "scheme: cp\n", Report(**parts))


def test_conversion_report(golden: Golden) -> None:
    steps = (
        StepResult("refit", True, SEEN, SEEN, 1.0, judged=(0.0712, 0.0488)),
        StepResult("refit", False, SEEN, SEEN, 1.0, judged=(0.0488, 0.0491)),
        StepResult("reconstruct", False, SEEN, None, 1.0, judged=(0.0488, None)),
    )
    seconds = {"plan": 41.2, "fit": 8.9}
    measured = printed(conversion_report(converted(stages={"convert": SEEN}, seconds=seconds, repair=steps)))
    unmeasured = printed(conversion_report(converted(seconds=seconds)))
    golden("conversion", measured + "\n" + unmeasured[unmeasured.index("divergence") :])


def test_run_report(golden: Golden) -> None:
    stages = (
        StageSummary("convert", 427_314, 1_734_120, 0.95, 0.07, 500, 0.909, 271.3, done_before=True),
        StageSummary("finetune", 427_314, 1_734_120, 0.976, 0.031, 1000, 0.9226, 600.2),
        StageSummary("code", 427_314, 86_394, 0.968, 0.04, 500, 0.9182, 190.0),
    )
    original = Evaluation(0.933, None, 5000, None, None, 855_770, 3_456_000, 125_485_706)
    unmeasured = (replace(stages[0], top1=None, agreement=None, kl=None),)
    runs = (
        RunReport("", True, stages, original=original, evaluation=original),
        RunReport("", False, unmeasured),
        RunReport("", None, stages),
    )
    golden("run", "\n".join(printed(run_report(converted(run=each))) for each in runs))


def test_finetune_report(golden: Golden) -> None:
    after, speed = replace(SEEN, kl=0.0123), {"seconds": 612.3, "images_per_second": 119.4, "lr": 1.06e-4}
    better = FinetuneReport(400, 51_200, 427_314, (0.1,), SEEN, after, True, **speed)
    worse = replace(better, after=SEEN, kept=False, falls=2, ended="plateau")
    texts = [printed(finetune_report(converted(finetune=each))) for each in (better, worse)]
    golden("finetune", "\n".join(texts))


def test_demo_report(golden: Golden) -> None:
    rows = (
        DemoRow("original", 74_922, 306_736, 2_970_000, 8.62, 0.9981),
        DemoRow("converted", 37_461, 158_000, 2_970_000, 8.52, 0.9889),
        DemoRow("fine-tuned", 37_461, 158_000, 2_970_000, 8.45, 0.9926),
        DemoRow("fine-tuned, factored", 37_461, 158_000, 1_140_000, 13.15, 0.9926),
    )
    checks = (Check("loads", True, ""), Check("folded", True, ""))
    analysis = Analysis(layers=LAYERS, groups=(), alone=(), metric="explained", params=855_770)
    golden("demo", printed(demo_report(Demo(analysis, PLAN, {"converted": SEEN}, rows, checks, 14.4, "digits-half"))))


def test_an_export_says_its_size_its_check_and_what_it_measured() -> None:
    measures = {"agreement": 0.965, "speed_up": 2.5, "taps": 3.0}
    made = Exported("onnx-int8", "net.onnx", 12_300, 0.012, "9 images", "takes any batch", measures=measures)
    assert export_lines(made) == [
        "net.onnx: 12.3 kB, takes any batch",
        "largest difference from torch: 1e-02 of the output, on 9 images",
        "the same top class as torch: 96.50 %",
        "times as fast as in 32 bits: 2.50",
        "taps: 3",
    ]
    unchecked = replace(made, difference=None, checked="nothing: a detector", measures={})
    assert export_lines(unchecked)[1:] == ["compared with torch: nothing: a detector"]
