"""The ONNX graph of a converted net: onnxruntime agrees with torch, or nothing is written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_nets import convert, route, small
from torch import nn

from kdna_convert.core.errors import ModelError
from kdna_convert.core.specs import DataConfig, ModelRef, Plan, Totals
from kdna_convert.inputs.data import accept_packed
from kdna_convert.inputs.data.packing import packing_of
from kdna_convert.network.folder import Conversion
from kdna_convert.routing import Router, routers
from kdna_convert.routing.modulation import Modulation
from kdna_convert.stages.export import Exported, ExportOptions, write_export
from kdna_convert.stages.export import onnx as exporting
from kdna_convert.stages.export.onnx import Onnx

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def conversion(routing: str | None = None) -> Conversion:
    net = small()
    family, routes = convert(net), route(net, routing)
    totals = Totals(1, 1, 1)
    plan = Plan(ModelRef("small"), (family,), (), totals, totals, routes=routes)
    return Conversion(net.eval(), plan, DataConfig(input_size=(3, 12, 12)), "scheme: cp\n")


def export(conversion: Conversion, path: Path, **options: Any) -> Exported:
    return write_export(Onnx(), conversion, path, ExportOptions(**options))


@pytest.mark.parametrize("routing", [None, "se"])
def test_onnxruntime_and_torch_agree_for_any_batch(routing: str | None, tmp_path: Path) -> None:
    converted = conversion(routing)
    for router in routers(converted.model).values():
        nn.init.normal_(router.fc2.weight, generator=torch.Generator().manual_seed(0))
    exported = export(converted, tmp_path / "deep" / "net.onnx")
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(batch))
        (logits,) = session.run(None, {"images": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), converted.model(x), atol=1e-4, rtol=1e-4)
    assert exported.bytes == (tmp_path / "deep" / "net.onnx").stat().st_size
    assert len(routers(converted.model)) == (3 if routing else 0)  # the conversion is as it was


class Returns(nn.Module):
    """A net that returns its output in this form."""

    def __init__(self, net: nn.Module, form: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x: torch.Tensor) -> Any:
        return self.form(self.net(x))


def returning(form: Callable[[torch.Tensor], Any]) -> Conversion:
    made = conversion()
    return replace(made, model=Returns(made.model, form).eval())


def test_the_tensors_of_a_dict_or_a_list_are_outputs_by_name(tmp_path: Path) -> None:
    net = returning(lambda z: {"out": z, "maps": [z.abs(), z[:, :1]]})
    exported = export(net, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["out", "maps.0", "maps.1"]
    x = torch.randn(3, 3, 12, 12)
    found = session.run(None, {"images": x.numpy()})
    with torch.no_grad():
        own = net.model(x)
    for z, expected in zip(found, [own["out"], *own["maps"]], strict=True):
        torch.testing.assert_close(torch.from_numpy(z), expected, atol=1e-4, rtol=1e-4)


def test_nets_without_a_graph_for_other_images_are_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "write_graph", lambda *_: pytest.fail("the graph was written"))
    detector = returning(lambda z: [{"boxes": own, "scores": own, "labels": own} for own in z])
    two, x = conversion(), torch.ones(1, 3, 12, 12)
    packing = packing_of((x,))
    assert packing is not None
    accept_packed(two.model, packing)
    broken = replace(conversion(), data=DataConfig(input_size=(1, 12, 12)))
    reasons = {"number of boxes": detector, "several inputs": two, r"does not run on an input of shape \(2, 1": broken}
    for reason, net in reasons.items():
        with pytest.raises(ModelError, match=rf"KD312: .*{reason}.*--to merged"):
            export(net, tmp_path / "net.onnx")


class Fixed(nn.Module):
    """A net that remembers the size of the batch that it was traced with."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.sizes = net, nn.Parameter(torch.ones(2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x) * (self.sizes if len(x) == 2 else 1)
        return out


def test_a_graph_for_one_size_of_batch_is_not_written(tmp_path: Path) -> None:
    made = conversion()
    with pytest.raises(ModelError, match="KD312"):
        export(replace(made, model=Fixed(made.model).eval()), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


class Whole(Router):
    """Kernels of every image that are no sum of a few."""

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> Modulation:
        return Modulation(kernel=weight[None] * x.mean((1, 2, 3)).view(-1, 1, 1, 1, 1))


def test_kernels_per_image_are_exported_as_products_with_patches(tmp_path: Path) -> None:
    converted = conversion("se")
    converted.model.last.gate = Whole(2)
    difference = export(converted, tmp_path / "net.onnx").difference
    assert difference is not None
    assert difference < 1e-4


def test_the_metadata_of_a_graph_says_what_it_takes_and_how_far_it_is_from_torch(tmp_path: Path) -> None:
    exported = export(conversion(), tmp_path / "net.onnx", normalize=True, input_names=("pixels",))
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["pixels"]
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["normalized_inside"] == "true"
    assert json.loads(facts["mean"]) == list(DataConfig().mean)
    assert float(facts["difference"]) == pytest.approx(exported.difference, rel=0.01)


def test_a_graph_with_dynamic_sizes_runs_on_other_sizes(tmp_path: Path) -> None:
    exported = export(conversion(), tmp_path / "net.onnx", dynamic=("height", "width"))
    session = onnxruntime.InferenceSession(exported.file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, "height", "width"]
    (logits,) = session.run(None, {"images": torch.zeros(1, 3, 17, 9).numpy()})
    assert len(logits) == 1


def test_a_graph_has_the_version_of_operators_that_is_asked_for_or_is_not_written(tmp_path: Path) -> None:
    export(conversion(), tmp_path / "net.onnx", opset=20)
    imported = onnx.load(str(tmp_path / "net.onnx")).opset_import
    assert [each.version for each in imported if not each.domain] == [20]
    with pytest.raises(ModelError, match=r"KD315: --opset 3"):
        export(conversion(), tmp_path / "old.onnx", opset=3)
    assert not (tmp_path / "old.onnx").exists()


def test_a_factored_graph_has_the_chains_and_returns_the_same(tmp_path: Path) -> None:
    made = conversion()
    counts = {}
    for name, factored in (("folded", None), ("factored", True)):
        exported = export(made, tmp_path / f"{name}.onnx", factored=factored)
        assert exported.difference is not None
        assert exported.difference < 1e-3
        nodes = onnx.load(str(tmp_path / f"{name}.onnx")).graph.node
        counts[name] = sum(node.op_type == "Conv" for node in nodes)
    assert counts["factored"] > counts["folded"]


def test_a_net_planned_for_a_latency_is_exported_factored(tmp_path: Path) -> None:
    made = conversion()
    totals = replace(made.plan.planned, latency=1000)
    planned = replace(made, plan=replace(made.plan, planned=totals))
    counts = {}
    for name, each in (("as it is", made), ("planned", planned)):
        export(each, tmp_path / f"{name}.onnx")
        record = json.loads((tmp_path / f"{name}.onnx.json").read_text())
        counts[name] = (record["options"]["factored"], len(onnx.load(str(tmp_path / f"{name}.onnx")).graph.node))
    assert (counts["as it is"][0], counts["planned"][0]) == (False, True)
    assert counts["planned"][1] > counts["as it is"][1]
