"""OpenVINO's folders: its runtime alone runs them, in 16 or 8 bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.exports import clean_outputs, difference, small_conversion
from support.processes import run_script
from support.small_nets import images
from torch import Tensor, nn

from kdna_convert.core.errors import DataError, ModelError
from kdna_convert.stages.export import EXPORTS, ExportOptions, openvino_int8, write_export

openvino = pytest.importorskip("openvino")
OPENVINO, INT8 = EXPORTS["openvino"], EXPORTS["openvino-int8"]
SCRIPT = """
import openvino
model = openvino.compile_model(f"{place}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
outputs = model({"images": images})["logits"]
"""


def test_a_clean_process_runs_the_folder_on_any_batch(tmp_path: Path) -> None:
    made = small_conversion("se")
    write_export(OPENVINO, made, tmp_path / "net")
    given = clean_outputs(SCRIPT, tmp_path / "net", images(5))
    with torch.no_grad():
        assert difference(given, made.model(images(5))) < 1e-3


def test_sizes_are_dynamic_only_where_they_were_asked_for(tmp_path: Path) -> None:
    write_export(OPENVINO, small_conversion(), tmp_path / "net", ExportOptions(dynamic=("batch", "width")))
    model = openvino.Core().read_model(tmp_path / "net" / "model.xml")
    assert str(model.inputs[0].partial_shape) == "[?,3,12,?]"


class Rare(nn.Module):
    """A layer with an operator that OpenVINO does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0(x)


def test_an_operator_that_is_not_converted_is_named_with_its_layer(tmp_path: Path) -> None:
    made = replace(small_conversion(), model=nn.Sequential(nn.Conv2d(3, 4, 1), Rare()).eval())
    with pytest.raises(ModelError, match=r"KD312: OpenVINO cannot convert the net: aten\.\S*i0\.default of layer 1$"):
        write_export(OPENVINO, made, tmp_path / "net")
    assert not [*tmp_path.iterdir()]


def test_eight_bits_need_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(INT8), "needs", ("openvino",))
    monkeypatch.setattr(openvino_int8, "converted", lambda _: pytest.fail("the work began"))
    with pytest.raises(DataError, match=r"KD405: .*--data DATA"):
        write_export(INT8, small_conversion(), tmp_path / "net")
    assert not [*tmp_path.iterdir()]


def test_a_clean_process_runs_the_folder_of_eight_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nncf")
    made, shown = small_conversion("se"), images(9)
    exported = write_export(INT8, made, tmp_path / "net", images=shown)
    assert not capsys.readouterr().out
    model = openvino.Core().read_model(tmp_path / "net" / "model.xml")
    assert {"u8", "i8"} & {str(each.get_output_element_type(0).get_type_name()) for each in model.get_ops()}
    given = clean_outputs(SCRIPT, tmp_path / "net", shown)
    with torch.no_grad():
        expected = made.model(shown)
    assert (given - expected).norm() < 0.05 * expected.norm()
    assert exported.measures.keys() == {"agreement", "relative_error", "held_out", "speed_up"}
    assert exported.measures["held_out"] == 5


SIGNALED = """
import faulthandler, os, signal
import torch
from torch import nn
from support.exports import small_conversion
from support.small_nets import images
from kdna_convert.stages.export import EXPORTS, write_export
from kdna_convert.stages.latency import RUNTIMES

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
write_export(EXPORTS["openvino-int8"], small_conversion(), PLACE, images=images(9))
load = lambda: RUNTIMES["openvino"].load_net(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4), 1)
first, second = load(), load()
del first
del second
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_still_handled_after_several_nets(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    assert run_script(SIGNALED.replace("PLACE", repr(str(tmp_path / "net")))) == (0, "handled\n")
