"""A net with several inputs, one after the other or in a dict: converted, measured and trained on batches of them."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from torch import Tensor, nn
from torch.utils.data import Dataset

import kdna_convert as kdna
from kdna_convert.core.errors import DataError
from kdna_convert.inputs.data import as_images, batches
from kdna_convert.inputs.data.packing import packing_of
from kdna_convert.inputs.recipe import Recipe

pytestmark = pytest.mark.usefixtures("quick_predictions")

A, B = tiny.noise(24), tiny.noise(24, seed=1)
INDEX = torch.arange(24) % 5


class Two(tiny.Net):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


class Named(tiny.Net):
    """Takes images, and an index of a learned row that is added to the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(5, tiny.CLASSES)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return super().forward(batch["image"]) + self.rows(batch["index"])


class Samples(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return {"image": A[index], "index": INDEX[index]}, int(INDEX[index])


NETS = {"tuple": Two, "dict": Named, "dataset": Named}
DATA: dict[str, Any] = {
    "tuple": [((a, b), None) for a, b in zip(A.split(10), B.split(10), strict=True)],
    "dict": {"index": INDEX, "image": A},
    "dataset": Samples(),
}
GIVEN: dict[str, tuple[Any, ...]] = {"tuple": (A, B), "dict": ({"image": A, "index": INDEX},)}
GIVEN["dataset"] = GIVEN["dict"]


def net_of(form: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[form]().eval()


@pytest.mark.parametrize("form", NETS)
def test_a_net_with_several_inputs_is_converted_measured_and_trained(form: str, tmp_path: Path) -> None:
    net = net_of(form)
    recipe = Recipe(scheme="cp", repair=("refit",), fit={"sweeps": 3})  # type: ignore[arg-type]
    conversion = kdna.convert(net, recipe=recipe, data=DATA[form], target_params=0.6)
    assert conversion.report.divergence is not None
    assert conversion.plan.original.macs > 64 * 12 * (27 + 4 * 108)
    with torch.no_grad():
        exact = net(*GIVEN[form])
        assert conversion.model(*GIVEN[form]).shape == exact.shape
        seen = kdna.evaluate(conversion, data=DATA[form])
        same = (conversion.model(*GIVEN[form]).argmax(1) == exact.argmax(1)).float().mean()
    assert seen.agreement == pytest.approx(float(same), abs=1e-6)
    tuned = kdna.finetune(conversion, data=DATA[form], steps=2, batch_size=8)
    kdna.save(tuned, tmp_path / "net")
    with torch.no_grad():
        loaded = kdna.load(tmp_path / "net", model=net_of(form))
        torch.testing.assert_close(loaded(*GIVEN[form]), tuned.model(*GIVEN[form]))
    assert all(check.ok for check in kdna.verify(tmp_path / "net", model=net_of(form)))
    again = kdna.evaluate(tmp_path / "net", model=net, data=DATA[form])
    assert again.agreement == kdna.evaluate(tuned, data=DATA[form]).agreement


def test_a_folder_of_a_net_with_several_inputs_is_coded_and_shrunk(tmp_path: Path) -> None:
    net, data = net_of("tuple"), DATA["tuple"]
    conversion = kdna.convert(net, recipe=Recipe(scheme="cp", fit={"sweeps": 3}), data=data, target_params=0.6)  # type: ignore[arg-type]
    folder = kdna.save(conversion, tmp_path / "net")
    coded = kdna.code(folder, model=net_of("tuple"), data=data, target_bytes=0.3)
    assert coded.report.stages["code"].images == 8
    shrunk = kdna.shrink(folder, model=net_of("tuple"), data=data, target_params=0.5)
    assert shrunk.report.stages["shrink"].images == 8


@pytest.mark.parametrize("form", NETS)
def test_the_users_net_is_not_changed(form: str) -> None:
    net = net_of(form)
    before = copy.deepcopy(net.state_dict())
    kdna.plan(net, recipe=Recipe(scheme="cp"), data=DATA[form], target_params=0.6)
    assert not net._forward_pre_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("inputs", [(A, B), {"image": A, "index": INDEX}, [A, INDEX[:, None], B]])
def test_unpacking_gives_back_what_was_packed(inputs: Any) -> None:
    packing = packing_of(inputs)
    assert packing is not None
    packed = packing.pack(inputs)
    assert packed.shape == (24, 1, packing.size)
    args = packing.unpack(packed)
    found = args[0] if isinstance(inputs, dict) else args
    pairs = [(found[key], inputs[key]) for key in (inputs if isinstance(inputs, dict) else range(len(inputs)))]
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in pairs)
    assert packing_of(A) is None


@pytest.mark.parametrize(
    "data", [[((A, B), None), ((A, B[..., :8]), None)], [((A, B[:5]), None)], [((A, "b"), None)], [((), None)]]
)
def test_inputs_that_do_not_fit_together_are_refused(data: Any) -> None:
    with pytest.raises(DataError, match="DATA gives") as error:
        list(batches(as_images(data)))
    assert error.value.code == "KD406"
