"""The forms for phones and boards: each runs in its own runtime, and says what it cannot hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.exports import clean_outputs, difference, small_conversion
from support.small_nets import images
from torch import Tensor, nn

from kdna_convert.core.errors import ModelError
from kdna_convert.stages.export import EXPORTS, ExportOptions, ncnn, write_export
from kdna_convert.stages.export.export import ExportSource
from kdna_convert.stages.export.pt2 import traced
from kdna_convert.stages.export.source import source_of

DEVICES = ("executorch", "litert", "ncnn", "coreml")
SCRIPTS = {
    "executorch": """
import torch
from executorch.runtime import Runtime
program = Runtime.get().load_program(place)
outputs = program.load_method("forward").execute([torch.from_numpy(images)])[0].numpy()
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter(place).get_signature_runner()
outputs = runner(args_0=images)["output_0"]
""",
    "ncnn": """
import ncnn
net = ncnn.Net()
assert not net.load_param(place + "/net.ncnn.param") and not net.load_model(place + "/net.ncnn.bin")
extractor = net.create_extractor()
extractor.input("in0", ncnn.Mat(images[0]).clone())
outputs = extractor.extract("out0")[1].numpy()[None]
""",
}
every_device = pytest.mark.parametrize("name", DEVICES)


def skip_without_libraries(name: str) -> None:
    for library in EXPORTS[name].needs:
        pytest.importorskip(library)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_clean_process_runs_the_export_in_its_runtime(name: str, tmp_path: Path) -> None:
    skip_without_libraries(name)
    made, shown = small_conversion("se"), images(1)
    exported = write_export(EXPORTS[name], made, tmp_path / "net")
    assert exported.difference is not None
    with torch.no_grad():
        expected, ungated = made.model(shown), small_conversion().model(shown)
    assert (expected - ungated).norm() > 0.02 * expected.norm()
    given = clean_outputs(SCRIPTS[name], tmp_path / "net", shown)
    assert given.shape == expected.shape
    assert difference(given, expected) < (2e-3 if name == "ncnn" else 1e-5)  # ncnn's weights have 16 bits


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_factored_net_runs_as_its_chains_in_the_runtime(name: str, tmp_path: Path) -> None:
    skip_without_libraries(name)
    made, shown, form = small_conversion(), images(1), EXPORTS[name]
    sizes = {}
    for factored in (False, True):
        exported = write_export(form, made, tmp_path / str(factored), ExportOptions(factored=factored))
        assert exported.difference is not None
        assert exported.difference < form.tolerance(ExportOptions())
        sizes[factored] = exported.bytes
    assert sizes[True] != sizes[False]
    with torch.no_grad():
        expected = made.model(shown)
    given = clean_outputs(SCRIPTS[name], tmp_path / "True", shown)
    assert difference(given, expected) < (5e-3 if name == "ncnn" else 1e-5)


def test_the_program_that_devices_get_has_the_chains_of_a_factored_net() -> None:
    made, shown, counts = small_conversion(), images(1), {}
    for factored in (False, True):
        source = source_of(made, ExportOptions(dynamic=(), factored=factored), None, graph=True)
        program = traced(source)
        counts[factored] = sum("conv2d" in str(node.target) for node in program.graph.nodes)
        with torch.no_grad():
            assert difference(program.module()(shown), made.model(shown)) < 1e-5
    assert counts[True] > counts[False]


@every_device
def test_a_net_planned_for_a_latency_is_written_factored(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def write(_: object, source: ExportSource, place: Path) -> str:
        asked.append(source.options.factored)
        raise ModelError("KD312", "enough")

    form, made = EXPORTS[name], small_conversion()
    planned = replace(made, plan=replace(made.plan, planned=replace(made.plan.planned, latency=1000)))
    monkeypatch.setattr(type(form), "needs", ())
    monkeypatch.setattr(type(form), "write", write)
    for each, options in ((made, None), (planned, None), (planned, ExportOptions(factored=False))):
        with pytest.raises(ModelError, match="enough"):
            write_export(form, each, tmp_path / "net", options)
    assert asked == [False, True, False]


class Rare(nn.Module):
    """A layer with an operator that no converter has."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@every_device
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # coremltools clears up twice
def test_an_operator_that_is_not_converted_is_refused(name: str, tmp_path: Path) -> None:
    skip_without_libraries(name)
    made = replace(small_conversion(), model=nn.Sequential(nn.Conv2d(3, 4, 1), Rare()).eval())
    with pytest.raises(ModelError, match=r"KD312: .*bessel_j0"):
        write_export(EXPORTS[name], made, tmp_path / "net")
    assert not [*tmp_path.iterdir()]


@every_device
def test_a_missing_library_or_another_size_is_refused_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = EXPORTS[name]
    monkeypatch.setattr(type(form), "write", lambda *_: pytest.fail("the work began"))
    with pytest.raises(ModelError, match=f"KD315: {name} does not take --dynamic"):
        write_export(form, small_conversion(), tmp_path / "net", ExportOptions(dynamic=("batch", "width")))
    monkeypatch.setattr(type(form), "needs", ("no_such_library",))
    with pytest.raises(ModelError, match=rf"KD312: no_such_library not installed: .*kdna-convert\[{name}\]"):
        write_export(form, small_conversion(), tmp_path / "net")
    assert not [*tmp_path.iterdir()]


def test_an_operator_that_ncnn_lacks_is_named_with_its_layer() -> None:
    head = "7767517\n3 3\nInput in0 0 1 in0\nConvolution conv_0 1 1 in0 1 0=6\n"
    ncnn._require_known(head)
    with pytest.raises(ModelError, match=r"KD312: ncnn has no aten::rare \(op_1\), pnnx.Expression \(op_2\); "):
        ncnn._require_known(f"{head}aten::rare op_1 1 1 1 2\npnnx.Expression op_2 1 1 2 3\n")


def test_a_routing_that_ncnn_does_not_run_is_refused(tmp_path: Path) -> None:
    skip_without_libraries("ncnn")
    with pytest.raises(ModelError, match=r"KD312: ncnn does not run the net: .*kdna freeze"):
        write_export(EXPORTS["ncnn"], small_conversion("cond"), tmp_path / "net")
    assert not [*tmp_path.iterdir()]


def test_a_package_of_core_ml_has_the_nets_inputs_outputs_and_layers(tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools")
    form = EXPORTS["coreml"]
    exported = write_export(form, small_conversion("se"), tmp_path / "net", ExportOptions(input_names=("photo",)))
    spec = coremltools.models.MLModel(str(tmp_path / "net" / "net.mlpackage"), skip_model_load=True).get_spec()
    tensors = [*spec.description.input, *spec.description.output]
    shapes = {each.name: tuple(each.type.multiArrayType.shape) for each in tensors}
    assert shapes == {"photo": (1, 3, 12, 12), "logits": (1, 4)}
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = [each.type for each in block.operations]
    assert (kinds.count("conv"), kinds.count("sigmoid")) == (4, 3)
    assert exported.difference is None
    assert exported.checked == "nothing: Core ML runs on macOS only"
