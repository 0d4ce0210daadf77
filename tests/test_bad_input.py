"""Invalid input gives one line that names the thing and the way out, exit code 2, and loses nothing."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.command import NET, TINY, convert, kdna

from kdna_convert.inputs.models import load_model


def refused(code: str, *arguments: object) -> str:
    """The message of a command that must fail with this code, on one line of stderr and none of stdout."""
    done = kdna(*arguments, "-q")
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"kdna: error {code}: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


# --- the model and its checkpoint


def test_an_unknown_model_is_refused_with_a_close_name() -> None:
    assert "resnet18" in refused("KD301", "analyze", "resnet81", "--data-free")
    assert "squeezenet1_1" in refused("KD301", "analyze", "torchvision:squeezenet1_2", "--data-free")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (f"{TINY}:nett", "net"),
        ("no/such/file.py:net", "no/such/file.py"),
        ("no.such.module:net", "no"),
        (f"{TINY}:no_factory", "no_factory"),
    ],
)
def test_a_factory_that_makes_no_net_is_named(model: str, named: str) -> None:
    assert named in refused("KD302", "analyze", model, "--data-free")


def test_a_net_that_cannot_run_says_what_torch_said() -> None:
    assert "mat1 and mat2" in refused("KD307", "analyze", f"{TINY}:broken_forward", "--data-free")


def test_a_net_with_nothing_to_convert_is_refused() -> None:
    refused("KD306", "plan", f"{TINY}:nothing_to_convert", "--data-free")


def test_a_sick_weight_is_named() -> None:
    assert "blocks.1.conv2.weight" in refused("KD701", "analyze", f"{TINY}:sick_weight", "--data-free")


def test_a_sick_activation_names_its_layer(images: Path) -> None:
    assert "blocks.1.conv1" in refused("KD702", "analyze", f"{TINY}:sick_activation", "--data", images)


def test_a_checkpoint_that_does_not_fit_lists_the_keys(tmp_path: Path) -> None:
    state = load_model(NET).model.state_dict()
    state["stem.kernel"] = state.pop("stem.weight")
    save_file(state, tmp_path / "other.safetensors")
    message = refused("KD303", "analyze", NET, "--checkpoint", tmp_path / "other.safetensors", "--data-free")
    assert "stem.weight" in message
    assert "stem.kernel" in message


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"weights.{ending}"
    state = load_model(NET).model.state_dict()
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-200])
    assert path.name in refused("KD304", "analyze", NET, "--checkpoint", path, "--data-free")


def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"stem.weight": Hostile()}, tmp_path / "hostile.pth")
    refused("KD304", "analyze", NET, "--checkpoint", tmp_path / "hostile.pth", "--data-free")
    assert not (tmp_path / "executed").exists()


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"stem.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (tmp_path / "lies.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refused("KD304", "analyze", NET, "--checkpoint", tmp_path / "lies.safetensors", "--data-free")


# --- the recipe


@pytest.mark.parametrize(
    ("code", "text", "named"),
    [
        ("KD201", "scheme: [cp", "line 1"),
        ("KD202", "scheme: cp\nexclud: [fc]\n", "line 2: exclud"),
        ("KD203", "scheme: cpp\n", "line 1: scheme"),
        ("KD203", "scheme: cp\nbudget: {params: 1.5}\n", "line 2: budget.params"),
        ("KD204", "scheme: cp\nexclude: ['block.*']\n", "line 2: exclude"),
        ("KD207", "scheme: cp\noptions:\n  rank: 100000\n", "line 3: options.rank"),
        ("KD504", "scheme: cp\n", "budget"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line_and_key(
    images: Path, tmp_path: Path, code: str, text: str, named: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert named in refused(code, "plan", NET, "--recipe", tmp_path / "mine.yaml", "--data", images)


def test_an_unknown_bundled_recipe_is_refused_with_a_close_name() -> None:
    assert "shared-cp" in refused("KD206", "plan", NET, "--recipe", "shared-pc", "--data-free")


def test_a_wrong_override_is_refused() -> None:
    assert "options.rnk" in refused("KD202", "plan", NET, "--set", "options.rnk=3", "--data-free")


# --- the images


def test_no_images_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere"):
        assert missing.name in refused("KD401", "plan", NET, "--data", missing)


@pytest.mark.parametrize("flags", [[], ["--data-free"]])
def test_fitting_without_images_gives_a_warning(flags: list[str]) -> None:
    done = kdna("plan", NET, *flags, "-q")
    assert done.exit_code == 0
    assert "no calibration images" in done.stderr
    assert "--data" in done.stderr


def test_a_damaged_image_is_skipped_counted_and_listed(images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    (copy / "class0" / "torn.png").write_bytes((copy / "class0" / "00.png").read_bytes()[:60])
    done = kdna("eval", NET, "--data", copy, "--json")
    assert json.loads(done.stdout)["images"] == 60
    assert "1 image was skipped" in done.stderr
    assert "torn.png" in done.stderr


def test_only_damaged_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    refused("KD401", "eval", NET, "--data", tmp_path)


def test_classes_that_are_not_the_nets_are_refused(images: Path, tmp_path: Path) -> None:
    for name in ("class0", "class1"):
        shutil.copytree(images / name, tmp_path / "images" / name)
    message = refused("KD402", "eval", NET, "--data", tmp_path / "images")
    assert "2 classes" in message
    assert "5 outputs" in message


# --- the budget and the plan


def test_a_budget_that_cannot_be_met_names_the_smallest_that_can(images: Path) -> None:
    message = refused("KD501", "plan", NET, "--target-params", "0.001", "--data", images)
    assert "smallest" in message


def test_two_budgets_are_a_usage_error() -> None:
    done = kdna("plan", NET, "--data-free", "--target-params", "0.5", "--target-macs", "0.5")
    assert done.exit_code == 2
    assert "--target-params and --target-macs" in done.stderr


def test_an_invalid_or_foreign_plan_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    refused("KD502", "convert", NET, "--data", images, "--plan", tmp_path / "broken.json", "-o", tmp_path / "out")
    assert kdna("plan", NET, "--data-free", "-o", tmp_path / "plan.json").exit_code == 0
    other = f"{TINY}:net(width=16)"
    refused("KD503", "convert", other, "--data", images, "--plan", tmp_path / "plan.json", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_and_a_budget_are_a_usage_error(images: Path, tmp_path: Path) -> None:
    done = kdna(*convert(images), "--plan", tmp_path / "plan.json", "--dry-run")
    assert done.exit_code == 2
    assert "--plan" in done.stderr


def test_a_converted_folder_is_not_converted_again(folder: Path, images: Path, tmp_path: Path) -> None:
    assert str(folder) in refused("KD302", *convert(images, model=str(folder)), "-o", tmp_path / "out")


# --- the folder


def test_an_existing_folder_is_refused_before_any_work(images: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    refused("KD601", *convert(images, model="not-even-a-model"), "-o", mine)
    refused("KD601", *convert(images, model="not-even-a-model"), "-o", mine, "--force")
    refused("KD601", "finetune", "not-even-a-folder", "--data", images, "-o", mine)
    refused("KD601", "demo", "-o", mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_force_replaces_a_converted_folder(folder: Path, images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    refused("KD601", *convert(images), "-o", copy)
    assert kdna(*convert(images), "-o", copy, "--force").exit_code == 0
    assert kdna("verify", copy).exit_code == 0


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "recipe.yaml", "plan.json", "report.json", "README.md"]
)
@pytest.mark.parametrize("harm", ["tampered", "truncated", "missing"])
def test_a_damaged_folder_is_named_by_verify_and_by_load(folder: Path, tmp_path: Path, name: str, harm: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    whole = (copy / name).read_bytes()
    middle = len(whole) // 2
    if harm == "missing":
        (copy / name).unlink()
    else:
        changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        (copy / name).write_bytes(changed if harm == "tampered" else whole[:middle])
    done = kdna("verify", copy)
    assert done.exit_code == 2
    assert name in done.stdout + done.stderr
    if name == "README.md":  # the model card is its owner's to edit
        assert kdna("export", copy, "-o", tmp_path / "merged.safetensors").exit_code == 0
    else:
        assert name in refused("KD602" if (name, harm) == ("config.json", "missing") else "KD603", "export", copy)


def test_a_foreign_folder_is_refused(images: Path) -> None:
    refused("KD602", "verify", images)
    refused("KD602", "export", images)


def test_export_does_not_overwrite(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "merged.safetensors"
    assert kdna("export", folder, "-o", target).exit_code == 0
    before = target.stat().st_mtime_ns
    refused("KD601", "export", folder, "-o", target)
    assert target.stat().st_mtime_ns == before
    assert kdna("export", folder, "-o", target, "--force").exit_code == 0


# --- the machine


def test_a_device_that_is_not_there_is_refused() -> None:
    assert "cuda:99" in refused("KD309", "plan", NET, "--data-free", "--device", "cuda:99")
    assert kdna("plan", NET, "--device", "tpu").exit_code == 2


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk does to a write, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_folder_and_nothing_else(folder: Path, images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with room_for(1000):
        refused("KD604", *convert(images), "-o", copy, "--force")
        refused("KD604", *convert(images), "-o", tmp_path / "new")
        refused("KD604", "export", folder, "-o", tmp_path / "merged.safetensors")
        refused("KD604", "plan", NET, "--data", images, "-o", tmp_path / "plan.json")
        refused("KD604", "plan", NET, "--data", images, "--database", tmp_path / "database.json")
        refused("KD604", "plan", NET, "--data", images, "--moments", tmp_path / "moments.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
