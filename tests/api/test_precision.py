"""Nets whose numbers are not float32: the conversion says so, and counts the original's bytes as they were."""

from pathlib import Path

import pytest
import torch
from support import tiny
from torch import nn

import kdna_convert as kdna
from kdna_convert.core.errors import ModelError
from kdna_convert.inputs.recipe import Recipe

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(24)


def converted(net: nn.Module, **more: object) -> kdna.Conversion:
    rules = Recipe(scheme="cp", fit={"sweeps": 1}, **more)  # type: ignore[arg-type]
    return kdna.convert(net, recipe=rules, data=IMAGES, target_params=0.7)


@pytest.mark.parametrize(("dtype", "codec"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
def test_a_half_net_is_counted_in_halves_and_the_note_names_the_codec(
    dtype: torch.dtype, codec: str, tmp_path: Path
) -> None:
    net = tiny.net().to(dtype)
    plain, half = converted(tiny.net()), converted(net)
    checks = kdna.verify(kdna.save(half, tmp_path / "out"), model=net)
    assert not [check for check in checks if not check.ok]
    header = plain.plan.original.bytes - 4 * plain.plan.original.params
    assert half.plan.original.bytes - 2 * half.plan.original.params < header + 1000
    assert half.plan.original.bytes < 0.6 * plain.plan.original.bytes
    assert half.plan.planned.bytes == plain.plan.planned.bytes
    (note,) = (note for note in half.report.notes if "float32" in note)
    assert str(dtype).removeprefix("torch.") in note
    assert f"--codec {codec}" in note
    assert not any("float32" in note for note in plain.report.notes)


def test_a_share_of_the_bytes_is_one_of_the_file_that_the_original_has() -> None:
    half = kdna.plan(tiny.net().half(), recipe="shared-cp", data_free=True, target_bytes=0.9)
    assert half.planned.bytes <= 0.9 * half.original.bytes < 0.6 * 4 * half.original.params


def test_complex_weights_are_refused_with_the_name_of_the_tensor() -> None:
    net = tiny.net()
    net.register_parameter("turn", nn.Parameter(torch.ones(2, dtype=torch.complex64)))
    with pytest.raises(ModelError, match=r"KD302: .*turn is complex"):
        converted(net)


def test_a_complex_buffer_keeps_its_numbers_in_a_folder(tmp_path: Path) -> None:
    def net() -> nn.Module:
        made = tiny.net()
        made.register_buffer("rotation", torch.full((2,), 1 + 2j, dtype=torch.complex64))
        return made

    folder = kdna.save(converted(net()), tmp_path / "out")
    for folded in (False, True):
        loaded = kdna.load(folder, model=net(), folded=folded)
        assert torch.equal(loaded.get_buffer("rotation"), net().get_buffer("rotation"))
