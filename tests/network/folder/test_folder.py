"""The converted folder: round trips, damage is named, a failed write loses nothing, loading executes nothing."""

import ast
import copy
import errno
import json
import runpy
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.small_nets import convert, images, route, small
from torch import nn

from kdna_convert.core import tensorfile
from kdna_convert.core.errors import FolderError, KdnaError
from kdna_convert.core.filesize import file_size, header, metadata
from kdna_convert.core.measurements import Divergence
from kdna_convert.core.specs import DataConfig, Layer, ModelRef, Plan, TensorSpec, Totals
from kdna_convert.inputs.models import load_model, state_digest
from kdna_convert.network.derive import fold
from kdna_convert.network.folder import Conversion, load, open_folder, save, verify
from kdna_convert.network.folder.card import model_card
from kdna_convert.network.folder.record import FILES, with_record
from kdna_convert.network.folder.report import Report
from kdna_convert.network.stored import DTYPES, stored_specs
from kdna_convert.schemes import SCHEMES

RECIPE = "# mine\nscheme: cp\n"
NAME = "support.small_nets:small"


def conversion(scheme: str = "cp", routing: str | None = None, name: str = NAME, recipe: str = RECIPE) -> Conversion:
    net = small()
    ref = ModelRef(name, None, state_digest(net))
    family, routes = convert(net, scheme), route(net, routing)
    layers = tuple(Layer(layer, "Conv2d", (6, 6, 3, 3)) for layer in family.members)
    params = sum(p.numel() for p in net.parameters())
    planned = Totals(params, file_size(stored_specs(net), metadata(ref, recipe)), 1000)
    plan = Plan(ref, (family,), layers, Totals(1300, 9000, 2000), planned, routes=routes)
    report = Report(divergence=Divergence(0.98, 0.0123, 0.0456, 500), command="kdna convert small")
    return Conversion(net, plan, DataConfig(input_size=(3, 12, 12)), recipe, report)


def outputs(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(images())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(conversion(), tmp_path_factory.mktemp("saved") / "out")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved folder, to be damaged."""
    copied = tmp_path / "out"
    copied.mkdir()
    for path in saved.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    return copied


def resealed(folder: Path, **changes: object) -> Path:
    """The folder after a stranger changed its record and made the digests agree."""
    config = json.loads((folder / "config.json").read_text())
    block = config.pop("kdna")
    model = replace(ModelRef(**block["model"]), **changes)
    (folder / "config.json").write_text(json.dumps(with_record(config, folder, model, DataConfig(**block["data"]))))
    return folder


# --- size -----------------------------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
tensors = st.dictionaries(names, st.tuples(shapes, st.sampled_from(sorted(DTYPES.values()))), min_size=1, max_size=8)


@given(tensors, st.dictionaries(names, names, min_size=1, max_size=4))
def test_the_size_of_a_file_is_known_to_the_byte(tmp_path_factory, made, about) -> None:
    made = {name: value for name, value in made.items() if name != "__metadata__"}
    kinds = {name: dtype for dtype, name in DTYPES.items()}
    specs = [TensorSpec(name, shape, dtype) for name, (shape, dtype) in made.items()]
    path = tmp_path_factory.getbasetemp() / "size.safetensors"
    safetensors.torch.save_file({s.name: torch.zeros(s.shape, dtype=kinds[s.dtype]) for s in specs}, path, about)
    written, own = path.read_bytes(), header(specs, about)
    assert len(written) == file_size(specs, about)
    assert json.loads(written[8 : len(own)]) == json.loads(own[8:])


def test_planning_a_size_needs_no_torch() -> None:
    code = "import kdna_convert.core.filesize, sys; print({'torch', 'safetensors', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- round trip -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", [None, "se"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_saved_folder_loads(scheme: str, routing: str | None, tmp_path: Path) -> None:
    made = conversion(scheme, routing)
    with torch.no_grad():
        for gate in (m.gate for m in made.model.modules() if hasattr(m, "gate")):
            gate.fc2.bias.fill_(0.2)
    save(made, tmp_path / "out")
    opened = open_folder(tmp_path / "out")
    assert (opened.plan, opened.data, opened.recipe, opened.report) == (made.plan, made.data, made.recipe, made.report)
    assert torch.equal(outputs(opened.model), outputs(made.model))
    assert not opened.model.training
    assert all(check.ok for check in verify(tmp_path / "out"))


def test_a_folded_load_has_ordinary_weights(saved: Path) -> None:
    folded = load(saved, folded=True)
    small().load_state_dict(folded.state_dict(), strict=True)
    torch.testing.assert_close(outputs(folded), outputs(load(saved)))


def test_the_file_has_the_planned_size_and_says_where_it_comes_from(saved: Path) -> None:
    made = conversion()
    assert (saved / "model.safetensors").stat().st_size == made.plan.planned.bytes
    with safetensors.safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == metadata(made.plan.model, RECIPE)
        assert "body.0.V" in file.keys()  # noqa: SIM118 - not a mapping


def test_the_same_conversion_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    again = save(conversion(), tmp_path / "out")
    assert all((again / name).read_bytes() == (saved / name).read_bytes() for name in (*FILES, "config.json"))


def test_the_folder_has_ordinary_files_and_permissions(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {*FILES, "config.json"}
    plain = saved.parent / "plain"
    plain.mkdir()
    (plain / "file").touch()
    assert saved.stat().st_mode == plain.stat().st_mode
    assert {path.stat().st_mode & 0o444 for path in saved.iterdir()} == {(plain / "file").stat().st_mode & 0o444}
    assert (saved / "recipe.yaml").read_text() == RECIPE


def test_a_recipe_keeps_its_line_ends(tmp_path: Path) -> None:
    save(conversion(recipe="scheme: cp\r\n# é\r\n"), tmp_path / "out")
    assert open_folder(tmp_path / "out").recipe == "scheme: cp\r\n# é\r\n"


def test_the_model_card_has_the_fields_of_the_hub(saved: Path) -> None:
    _, front, body = (saved / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    assert "base_model" not in front  # the Hub knows it by no such name
    assert NAME in body
    assert front["library_name"] == "kdna"
    assert "kdna" in front["tags"]
    loading = 'kdna_convert.load("out", folded=True)'
    for text in ("0.98", "0.0123", "kdna convert small", loading, "scheme: cp", "1,300"):
        assert text in body


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "timm:hf_hub:timm/resnet18.a1_in1k"])
def test_the_model_card_names_a_base_model_that_is_on_the_hub(name: str) -> None:
    made = conversion()
    plan = replace(made.plan, model=replace(made.plan.model, name=name))
    front = yaml.safe_load(model_card(plan, RECIPE, made.report, "out").split("---\n", 2)[1])
    assert (front["base_model"], front["base_model_relation"]) == ("timm/resnet18.a1_in1k", "quantized")


def test_a_timm_net_keeps_timms_fields_and_is_rebuilt_by_name(tmp_path: Path) -> None:
    loaded = load_model("test_resnet(num_classes=5)", pretrained=False)
    family = convert(loaded.model, "basis", ("layer1.0.conv2",))
    layer = Layer("layer1.0.conv2", "Conv2d", tuple(loaded.model.layer1[0].conv2.weight.shape))
    plan = Plan(loaded.ref, (family,), (layer,), Totals(1, 1, 1), Totals(1, 1, 1))
    save(Conversion(loaded.model, plan, loaded.data, RECIPE), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("test_resnet", 5)
    assert config["pretrained_cfg"]["input_size"] == list(loaded.data.input_size)
    assert not {"url", "hf_hub_id"} & set(config["pretrained_cfg"])
    x = torch.randn(1, *loaded.data.input_size)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "out")(x), loaded.model(x))


def test_a_model_passed_in_is_converted_in_place(saved: Path) -> None:
    mine = small(7)
    assert load(saved, model=mine) is mine
    assert torch.equal(outputs(mine), outputs(load(saved)))
    with pytest.raises(KdnaError, match="KD503"):
        load(saved, model=nn.Sequential(nn.Conv2d(3, 3, 1)))
    other = small()
    other.head = nn.Linear(6, 9)
    with pytest.raises(KdnaError, match=r"KD303: .*head.weight is \(4, 6\), not \(9, 6\)"):
        load(saved, model=other)


# --- writing --------------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_replaced_only_by_force(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"KD601: .*--force"):
        save(conversion(), folder)
    assert (folder / "notes.txt").exists()
    save(conversion("basis"), folder, force=True)
    assert open_folder(folder).plan.families[0].scheme == "basis"
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_force_replaces_nothing_that_kdna_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    (tmp_path / "file").write_text("...")
    (tmp_path / "empty").mkdir()
    for place in ("thesis", "file"):
        with pytest.raises(FolderError, match=r"KD601: .*not written by kdna"):
            save(conversion(), tmp_path / place, force=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "..."
    save(conversion(), tmp_path / "empty", force=True)


def test_a_damaged_folder_can_be_replaced(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    save(conversion(), folder, force=True)
    assert open_folder(folder)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), safetensors.SafetensorError("full")]
)
def test_a_full_disk_leaves_the_old_folder_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise error

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(tensorfile, "save_file", full)
    for target, force in ((folder, True), (folder.parent / "new", False)):
        with pytest.raises(FolderError, match=r"KD604: .*nothing was left behind"):
            save(conversion("basis"), target, force)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tensorfile, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(conversion(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from kdna_convert.core import atomic

    def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)

    {patch}
    with atomic.new_folder(Path({target!r})) as folder:
        (folder / "config.json").write_text("half")
        {inside}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("patch", "inside", "between"),
    [
        ("", "die()", False),  # half written
        ("atomic._flush = die", "", False),  # written, not moved
        ("atomic.shutil.rmtree = die", "", False),  # moved, the old one not yet removed
        (
            "sys.platform = 'other'; atomic.Path.rename = lambda a, b: (os.rename(a, b), die())",
            "",
            True,
        ),  # between two moves
    ],
    ids=["writing", "flushing", "removing", "moving"],
)
def test_a_killed_process_leaves_a_whole_folder_and_the_next_save_cleans_up(
    folder: Path, patch: str, inside: str, between: bool
) -> None:
    code = textwrap.dedent(KILLED).format(patch=patch, inside=inside, target=str(folder))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [path for path in folder.parent.iterdir() if path.name.startswith(".out.kdna-")]
    assert left
    if between:  # the one moment in which a system without an atomic swap has the folder under its other name
        (folder.parent / ".out.kdna-old").rename(folder)
    whole = (folder / "config.json").read_text() == "half" or open_folder(folder).recipe == RECIPE
    assert whole
    if between:
        folder.rename(folder.parent / ".out.kdna-old")
    else:
        (folder / "config.json").unlink()
    save(conversion("basis"), folder, force=True)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert open_folder(folder).plan.families[0].scheme == "basis"


def test_saving_through_a_link_keeps_the_link(folder: Path) -> None:
    link = folder.parent / "latest"
    link.symlink_to(folder)
    save(conversion("basis"), link, force=True)
    assert link.is_symlink()
    assert open_folder(folder).plan.families[0].scheme == "basis"


def test_tied_weights_are_tied_after_loading(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4))
        net[2].weight = net[1].weight
        return net

    net, other = tied(), tied()
    layers = (Layer("0", "Conv2d", (4, 4, 3, 3)),)
    plan = Plan(ModelRef("x"), (convert(net, "cp", ("0",)),), layers, Totals(1, 1, 1), Totals(1, 1, 1))
    save(Conversion(net, plan, DataConfig(), RECIPE), tmp_path / "out")
    assert load(tmp_path / "out", model=other)[2].weight is other[1].weight


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "config.json"])
@pytest.mark.parametrize("how", ["changed", "truncated", "missing"])
def test_damage_is_named_by_load_and_verify(folder: Path, name: str, how: str) -> None:
    path, content = folder / name, (folder / name).read_bytes()
    if how == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        changed = bytes([content[middle] ^ 1])
        path.write_bytes(content[:middle] + (changed + content[middle + 1 :] if how == "changed" else b""))
    code = "KD602" if (name, how) == ("config.json", "missing") else "KD603"
    if name == "README.md":  # a model card is its owner's to edit: verify says that it was, load does not mind
        assert load(folder)
    else:
        with pytest.raises(FolderError, match=f"{code}: .*{name}"):
            load(folder)
    if code == "KD602":
        with pytest.raises(FolderError, match="KD602"):
            verify(folder)
    else:
        failed = [check for check in verify(folder) if not check.ok]
        assert [check.name for check in failed] == [name]
        assert name in failed[0].detail


def test_reformatting_the_config_is_not_damage(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, sort_keys=True))
    assert load(folder)


def test_a_folder_not_written_by_kdna_is_refused(tmp_path: Path) -> None:
    for config in (None, "{}", '{"architecture": "resnet18"}', "[]"):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(FolderError, match=r"KD602: .*not a folder written by kdna"):
            load(tmp_path)
    with pytest.raises(FolderError, match="KD602"):
        load(tmp_path / "nowhere")


def test_a_newer_format_asks_for_an_update(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["kdna"] |= {"version": 99, "something": "new"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FolderError, match=r"KD605: .*update kdna"):
        load(folder)


def test_a_folder_with_matching_digests_is_still_checked(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:40])
    with pytest.raises(FolderError, match=r"KD603: .*model.safetensors"):
        load(resealed(folder))
    (folder / "model.safetensors").write_bytes(content)
    plan = (folder / "plan.json").read_text()
    (folder / "plan.json").write_text(plan.replace('"families"', '"famlies"'))
    with pytest.raises(FolderError, match=r"KD603: .*plan.json"):
        load(resealed(folder))
    (folder / "plan.json").write_text(plan.replace('"params": 1300', '"params": 1301'))
    assert all(check.ok for check in verify(resealed(folder), trust_code=True))


def test_verify_finds_errors_behind_matching_digests(folder: Path) -> None:
    def failing() -> list[str]:
        return [check.name for check in verify(resealed(folder), trust_code=True) if not check.ok]

    made = conversion()
    made.plan = replace(made.plan, planned=replace(made.plan.planned, params=1))
    save(made, folder, force=True)
    assert failing() == ["totals"]
    made = conversion()
    made.model.head.bias.data[0] = float("nan")
    save(made, folder, force=True)
    assert failing() == ["finite", "folded"]
    save(conversion(), folder, force=True)
    (folder / "recipe.yaml").write_text("scheme: basis\n")
    assert failing() == ["header"]


# --- the original ---------------------------------------------------------------------------------------------------


def test_verify_compares_the_original_checkpoint_where_it_is(tmp_path: Path) -> None:
    checkpoint = tmp_path / "small.safetensors"
    safetensors.torch.save_file(small().state_dict(), checkpoint)
    made = conversion()
    made.plan = replace(made.plan, model=replace(made.plan.model, checkpoint=str(checkpoint)))
    save(made, tmp_path / "out")
    assert verify(tmp_path / "out")[-1].ok
    assert "made from" in verify(tmp_path / "out")[-1].detail
    safetensors.torch.save_file(small(4).state_dict(), checkpoint)
    assert verify(tmp_path / "out")[-1].detail.endswith("has changed since the conversion")
    mine = small(4)
    assert not verify(tmp_path / "out", model=mine)[-1].ok
    assert torch.equal(outputs(mine), outputs(small(4)))
    checkpoint.unlink()
    assert verify(tmp_path / "out")[-1].detail.startswith("not checked")


# --- the loader in the folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("routing", [None, "se"])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_the_loader_in_the_folder_gives_the_folded_state_dict(tmp_path: Path, scheme: str, routing: str | None) -> None:
    made = conversion(scheme, routing)
    folder = save(made, tmp_path / "net")
    state = runpy.run_path(str(folder / "loader.py"))["state_dict"](folder)
    expected = fold(copy.deepcopy(made.model)).state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, atol=1e-6, rtol=1e-6)


def test_the_loader_in_the_folder_refuses_a_gate_that_has_learned_something(tmp_path: Path) -> None:
    made = conversion("cp", "se")
    with torch.no_grad():
        made.model.last.gate.fc2.bias.fill_(0.5)
    folder = save(made, tmp_path / "net")
    with pytest.raises(ValueError, match="last has a routing"):
        runpy.run_path(str(folder / "loader.py"))["state_dict"](folder)


def test_the_loader_in_the_folder_needs_torch_alone(saved: Path) -> None:
    # what entropy-coded folders need besides, it asks for later
    body = ast.parse((saved / "loader.py").read_text()).body
    plain = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in body if isinstance(node, ast.ImportFrom)}
    assert (plain | named) - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize("routing", [None, "se"])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_loading_folded_is_loading_and_folding(tmp_path: Path, scheme: str, routing: str | None) -> None:
    folder = save(conversion(scheme, routing), tmp_path / "net")
    folded, expected = load(folder, folded=True), fold(load(folder))
    assert list(folded.state_dict()) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(folded.state_dict()[name], tensor), name
    assert all(parameter.requires_grad for parameter in folded.parameters())
    assert not any(module.training for module in folded.modules())


def test_saving_a_net_that_is_no_conversion_says_what_to_pass(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Conversion, as convert, finetune and open_folder return, not Small"):
        save(load(folder, model=small()), tmp_path / "again")  # type: ignore[arg-type]
    assert not (tmp_path / "again").exists()
