"""The 8-bit graph: integers inside, calibrated on some images and measured on others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.exports import clean_outputs, small_conversion
from support.small_nets import images
from torch import Tensor, nn

from kdna_convert.core.errors import DataError, ModelError
from kdna_convert.core.measurements import Divergence
from kdna_convert.network.folder import Conversion, Report
from kdna_convert.stages.export import EXPORTS, eight_bits, onnx_int8, write_export
from kdna_convert.stages.export.export import ExportOptions, ExportSource

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
INT8 = EXPORTS["onnx-int8"]


def test_a_clean_process_runs_the_integers(tmp_path: Path) -> None:
    made, shown = small_conversion("se"), images(9)
    exported = write_export(INT8, made, tmp_path / "net.onnx", images=shown)
    graph = onnx.load(exported.file).graph
    convolutions = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    kinds = {name: node.op_type for node in graph.node for name in node.output}
    assert convolutions
    assert {kinds[weight] for weight in convolutions} == {"DequantizeLinear"}
    script = "import onnxruntime; outputs = onnxruntime.InferenceSession(place).run(None, {'images': images})[0]"
    given = clean_outputs(script, Path(exported.file), shown)
    with torch.no_grad():
        expected = made.model(shown)
    assert (given - expected).norm() < 0.05 * expected.norm()
    assert exported.note == "takes any batch; calibrated on 4 images"
    assert exported.measures.keys() == {"agreement", "relative_error", "held_out", "speed_up"}
    held_out = slice(4, 9)
    error = float(((given - expected)[held_out].norm() / expected[held_out].norm()) ** 2)
    assert exported.measures["relative_error"] == pytest.approx(error, rel=1e-3)
    assert (exported.measures["held_out"], exported.measures["agreement"]) == (5, 1)
    assert {each.name for each in tmp_path.iterdir()} >= {"net.onnx", "net.onnx.json"}
    assert not [*tmp_path.glob("*float*")]


def test_without_images_nothing_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_int8, "write_graph", lambda *_: pytest.fail("the work began"))
    for given in (None, images(1)):
        with pytest.raises(DataError, match=r"KD405: .*--data DATA"):
            write_export(INT8, small_conversion(), tmp_path / "net.onnx", images=given)
    assert not [*tmp_path.iterdir()]


def test_a_graph_that_is_not_quantized_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"KD312: onnxruntime cannot quantize the graph: "):
        onnx_int8.quantize(tmp_path / "broken.onnx", tmp_path / "net.onnx", images(), "images")


@pytest.mark.parametrize(("machine", "flags", "reduced"), [("x86_64", "avx2", True), ("x86_64", "avx512_vnni", False)])
def test_weights_lose_a_bit_only_where_sums_would_overflow(
    machine: str, flags: str, reduced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : sse {flags}")
    monkeypatch.setattr(onnx_int8, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(onnx_int8.platform, "machine", lambda: machine)  # type: ignore[attr-defined]
    assert onnx_int8._saturates() == reduced


def source(made: Conversion, given: Tensor) -> ExportSource:
    return ExportSource(made.model, given[:2], ("logits",), ExportOptions(), made, given)


def test_agreement_is_measured_where_the_output_has_classes() -> None:
    made, given = small_conversion(), images(7)
    turned = lambda x: {"logits": -made.model(x)}  # noqa: E731
    with torch.no_grad():
        assert eight_bits.quality(source(made, given), turned) == {
            "agreement": 0.0,
            "relative_error": pytest.approx(4),
            "held_out": 4.0,
        }
        restored = replace(made, report=Report(divergence=Divergence(None, None, 0.0, 1, task="image")))
        assert "agreement" not in eight_bits.quality(source(restored, given), turned)
        maps = replace(made, model=nn.Sequential(nn.Conv2d(3, 4, 1)).eval())
        assert "agreement" not in eight_bits.quality(source(maps, given), lambda x: {"output": maps.model(x)})


def test_speed_up_is_the_ratio_of_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 4.0, 6.0] * 99)
    monkeypatch.setattr(eight_bits.time, "perf_counter", lambda: next(clock))  # type: ignore[attr-defined]
    assert eight_bits.speed_up(lambda _: 1, lambda _: 2, source(small_conversion(), images())) == 2
