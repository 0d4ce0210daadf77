"""`kdna bank`: what it writes, and how it names it."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from support.command import FEW_IMAGES, NET, kdna
from support.tiny import net

from kdna_convert.cli.commands.bank import VariantFlags


def checkpoints(place: Path) -> list[Path]:
    files = [place / f"{name}.safetensors" for name in ("red", "blue")]
    for seed, file in enumerate(files):
        generator = torch.Generator().manual_seed(seed)
        state = net().state_dict()
        moved = {
            name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in state.items()
        }
        save_file({name: tensor.contiguous().clone() for name, tensor in moved.items()}, file)
    return files


def test_a_folder_for_each_fine_tune_and_an_update_for_all_but_the_first(tmp_path: Path, images: Path) -> None:
    one, other = checkpoints(tmp_path)
    words = ["bank", NET, "--checkpoint", one, "--checkpoint", other, "-d", images, "--recipe", "shared-basis"]
    done = kdna(*words, *FEW_IMAGES, "--target-params", "0.6", "-o", tmp_path / "both", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [Path(row["folder"]).name for row in rows] == ["red", "blue"]
    assert rows[0]["update"] is None
    assert rows[1]["update"] == (tmp_path / "both" / "blue.update").stat().st_size
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["blue", "blue.update", "red"]
    patched = kdna("patch", tmp_path / "both" / "red", tmp_path / "both" / "blue.update", "-o", tmp_path / "again")
    assert patched.exit_code == 0, patched.stderr
    again = kdna(*words, *FEW_IMAGES, "--target-params", "0.6", "-o", tmp_path / "both", "-q")
    assert (again.exit_code, "KD601" in again.stderr) == (2, True)

    later = kdna(
        *("bank", NET, "--checkpoint", other, "--shared", tmp_path / "both" / "red", "-d", images),
        *("-o", tmp_path / "later"),
    )
    assert later.exit_code == 0, later.stderr
    assert "1 folder" in later.stdout
    assert (tmp_path / "later" / "blue.update").exists()


def test_names_are_those_of_the_checkpoints_or_models_numbered_where_two_are_equal() -> None:
    assert VariantFlags(["net"], ["a/one.pth", "b/two.pth"]).names == ["one", "two"]
    assert VariantFlags(["net"], ["a/best.pth", "b/best.pth"]).names == ["best-1", "best-2"]
    assert VariantFlags(["nets.py:cats", "timm:resnet18"]).names == ["nets.py-cats", "timm-resnet18"]
