"""Laws of trust: a folder from elsewhere runs nothing, the user's own folders need no word."""

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.command import kdna
from support.hostile import rename
from support.places import TESTS
from torch import nn

import kdna_convert
from kdna_convert.api.bench import benchmark
from kdna_convert.api.layouts import LAYOUTS
from kdna_convert.core.errors import FolderError, KdnaError
from kdna_convert.inputs.digits import WEIGHTS, digits_net
from kdna_convert.inputs.models import fit_weights, read_state_dict
from kdna_convert.inputs.models.names import parse_name
from kdna_convert.inputs.models.registry import FACTORIES, is_listed, unusual_argument
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.folder import Origin, open_folder, read_claim, remember, save
from kdna_convert.network.folder.record import CONFIG, PLAN
from kdna_convert.network.folder.trust import Permit

X = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
STDLIB = Path(os.__file__).parent

Door = Callable[..., Any]
# Everything that reads a folder.
DOORS: dict[str, Door] = {
    "load": kdna_convert.load,
    "load folded": lambda folder, **how: kdna_convert.load(folder, folded=True, **how),
    "open_folder": open_folder,
    "verify": kdna_convert.verify,
    "evaluate": lambda folder, **how: kdna_convert.evaluate(folder, data=X, **how),
    "benchmark": lambda folder, **how: benchmark(folder, rounds=3, **how),
    "finetune": lambda folder, **how: kdna_convert.finetune(folder, data=X, steps=1, batch_size=4, **how),
    "code": lambda folder, **how: kdna_convert.code(folder, codec="fp16", **how),
    "shrink": lambda folder, **how: kdna_convert.shrink(folder, target_params=0.2, **how),
    "freeze": lambda folder, **how: kdna_convert.freeze(folder, data=X, **how),
    "export": lambda folder, **how: kdna_convert.export(folder, output=folder.parent / "out.safetensors", **how),
}
# Those whose first argument is a MODEL, which may be a folder; they take no module beside it.
MODEL_DOORS: dict[str, Door] = {
    "analyze": kdna_convert.analyze,
    "plan": lambda folder, **how: kdna_convert.plan(folder, target_params=0.5, **how),
    "curve": kdna_convert.curve,
}
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("verify", "FOLDER"),
    ("eval", "FOLDER", "--data", "kdna:digits/test"),
    ("bench", "FOLDER"),
    ("finetune", "FOLDER", "--data", "kdna:digits/train", "--steps", "1", "-o", "OUT"),
    ("code", "FOLDER", "--codec", "fp16", "-o", "OUT"),
    ("shrink", "FOLDER", "--target-params", "0.2", "-o", "OUT"),
    ("freeze", "FOLDER", "--data", "kdna:digits/train", "-o", "OUT"),
    ("export", "FOLDER", "-o", "OUT"),
    ("analyze", "FOLDER"),
    ("plan", "FOLDER", "--target-params", "0.5"),
    ("plan", "FOLDER", "--curve"),
)

# HERE is a file that the attack would make, FOLDER the folder, CWD the current directory.
ATTACKS = {
    "a shell": "subprocess:getoutput('touch HERE')",
    "os.system": "os:system('touch HERE')",
    "a builtin": "builtins:open('HERE', 'w')",
    "exec": 'builtins:exec(\'open("HERE", "w")\')',
    "unpickling by torch": "torch:load('CWD/evil.pth', weights_only=False)",
    "unpickling by timm": "timm.models._helpers:load_state_dict('CWD/evil.pth', weights_only=False)",
    "timm's create_model": "timm.models:create_model('resnet18', checkpoint_path='CWD/evil.pth')",
    "an attribute of an attribute": "timm.models.efficientnet:os.system('touch HERE')",
    "a class of timm's": "timm.models.resnet:ResNet(block='x', layers=[1])",
    "torchvision's registry": "torchvision.models._api:get_model('resnet18', weights='DEFAULT')",
    "a private module of kdna": "kdna_convert.core.tensorfile:load_tensors('CWD/evil.pth')",
    "another function of kdna's digits": "kdna_convert.inputs.digits:nn.Module.load_state_dict('HERE')",
    "the standard library by its path": f"{STDLIB}/subprocess.py:getoutput('touch HERE')",
    "a copy of the standard library": "CWD/other/lib/subprocess.py:getoutput('touch HERE')",
    "a file in the folder": "FOLDER/evil.py:f",
    "a file beside the folder": "evil.py:f",
    "an absolute path": "CWD/evil.py:f",
    "a package in the current directory": "evilpackage:f",
    "a package that shadows the folder": "out:f",
    "a module beside the folder": "evil:f",
    "a package with the name of a library": "timm.evil:f",
    "the Hub": "hf-hub:evil/repository",
    "the Hub by timm's prefix": "timm:hf-hub:evil/repository",
    "the Hub by its older name": "hf_hub:evil/repository",
    "a local directory": "local-dir:FOLDER",
    "a local directory by timm's prefix": "timm:local-dir:CWD",
    "pretrained weights": "resnet18(pretrained=True)",
    "a checkpoint": "resnet18(checkpoint_path='CWD/evil.pth')",
    "a checkpoint for torchvision": "torchvision:resnet18(weights='DEFAULT')",
    "a backbone's weights": "torchvision:fcn_resnet50(weights_backbone='DEFAULT')",
    "a changed configuration": "resnet18(pretrained_cfg_overlay={'file': 'CWD/evil.pth'})",
    "a configuration": "resnet18(pretrained_cfg={'hf_hub_id': 'evil/repository'})",
    "a model configuration": "efficientnet_b0(model_cfg={'x': 1})",
    "a cache": "resnet18(cache_dir='CWD')",
    "features only": "resnet18(features_only=True)",
    "scripting": "resnet18(scriptable=True)",
    "export": "resnet18(exportable=True)",
    "a pruned net's file": "resnet18(pruned=True)",
    "a path for a layer": "resnet18(act_layer='CWD/evil.py')",
    "nested arguments": "resnet18(block_args={'attn_layer': 'se'})",
    "a layout's checkpoint": "kdna_convert.api.layouts:kerneldna_resnet18(checkpoint_path='CWD/evil.pth')",
    "a large input": "vit_tiny_patch16_224(img_size=200000)",
    "a large classifier": "resnet18(num_classes=100000000000)",
    "many channels": "resnet18(in_chans=1000000)",
    "infinity": "resnet18(drop_rate=1e999)",
}
# What a registry lists, and is too large for the tensors in the folder.
LARGE = {
    "a wide net": "resnet18(num_classes=1000000)",
    "a deep net": "resnet18(layers=(2000,2,2,2))",
    "a net of a billion parameters": "vit_giant_patch14_reg4_dinov2",
    "a table of all pairs of positions": "swin_tiny_patch4_window7_224(window_size=160, img_size=1920)",
}
BROKEN = {
    "no such net": "no_such_net",
    "no such tag": "resnet18.no_such_tag",
    "no name": "",
    "a null byte": "net\0.py:f",
    "a very long name": "resnet18(" + "a" * 100_000,
    "deep brackets": "resnet18(x=" + "(" * 2000 + ")" * 2000 + ")",
    "many signs": "resnet18(x=" + "-" * 900 + "1)",
    "many sums": "resnet18(x=" + "1+" * 1500 + "1)",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a converted folder, in the current directory, among the files of the attacks."""
    monkeypatch.chdir(tmp_path)
    out = Path(shutil.copytree(TESTS / "folders" / "digits", tmp_path / "out"))
    code = touching(tmp_path / "ran")
    for place in ("evil.py", "out/evil.py", "out/__init__.py", "evilpackage/__init__.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(code)
    (tmp_path / "other/lib").mkdir(parents=True)
    shutil.copy(STDLIB / "subprocess.py", tmp_path / "other/lib")
    torch.save(Evil(tmp_path / "ran"), tmp_path / "evil.pth")
    return out


def touching(path: Path) -> str:
    """A module that makes a file when it is imported."""
    return f"import pathlib\npathlib.Path({str(path)!r}).touch()\ndef f(): ...\n"


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test."""

    def connect(*_: Any) -> None:
        raise AssertionError("a folder opened a connection")

    monkeypatch.setattr("socket.socket.connect", connect)


def hostile(folder: Path, name: str, places: tuple[str, ...] = (CONFIG, PLAN)) -> Path:
    cwd = folder.parent
    for word, value in {"HERE": cwd / "ran", "FOLDER": folder, "CWD": cwd}.items():
        name = name.replace(word, str(value))
    return rename(folder, name, places)


def nothing_ran(folder: Path) -> bool:
    return not (folder.parent / "ran").exists()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> str:
    return "subprocess:getoutput('touch HERE')"


# --- a folder from elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_folder_that_names_code_runs_nothing_through_any_door(folder: Path, attack: str) -> None:
    hostile(folder, ATTACKS[attack])
    for door in (DOORS | MODEL_DOORS).values():
        with pytest.raises(FolderError, match=r"KD611: .*Nothing was run; .*--trust-code.*trust_code=True.*model="):
            door(folder)
    assert nothing_ran(folder)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("attack", ["a shell", "a file beside the folder", "the Hub", "a checkpoint"])
@pytest.mark.parametrize("place", [CONFIG, PLAN])
def test_both_recorded_names_must_be_equal(folder: Path, attack: str, place: str) -> None:
    hostile(folder, ATTACKS[attack], (place,))
    for name, door in (DOORS | MODEL_DOORS).items():
        if name == "verify":
            assert not all(check.ok for check in door(folder))
        else:
            with pytest.raises(FolderError, match=r"KD603: .*name different models"):
                door(folder)
    assert nothing_ran(folder)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_runs_what_a_folder_names(folder: Path, command: tuple[str, ...], shell: str) -> None:
    hostile(folder, shell)
    done = kdna(*[word.replace("FOLDER", str(folder)).replace("OUT", str(folder.parent / "made")) for word in command])
    assert done.exit_code == 2
    assert "KD611" in done.stderr
    assert f"getoutput('touch {folder.parent / 'ran'}')" in " ".join(done.stderr.split())
    assert str(Path(sys.modules["subprocess"].__file__).resolve()) in done.stderr.replace("\n", "")
    assert nothing_ran(folder)


@pytest.mark.usefixtures("offline")
def test_a_teachers_folder_runs_nothing(folder: Path, tmp_path: Path, shell: str) -> None:
    teacher = hostile(Path(shutil.copytree(folder, tmp_path / "teacher")), shell)
    mine = fit_weights(digits_net(), read_state_dict(str(WEIGHTS)), "")
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.finetune(folder, model=mine, teacher=teacher, data=X, steps=1)
    assert nothing_ran(folder)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("case", LARGE)
def test_a_net_too_large_for_the_folders_tensors_is_not_built(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile(folder, LARGE[case])
    allocated = 0
    empty = torch.empty

    def counted(*shape: Any, **how: Any) -> torch.Tensor:
        nonlocal allocated
        made: torch.Tensor = empty(*shape, **how)
        allocated += 0 if made.is_meta else made.numel()
        return made

    monkeypatch.setattr(torch, "empty", counted)
    with pytest.raises(FolderError, match=r"KD611: .*too large for its model.safetensors"):
        kdna_convert.load(folder)
    assert allocated <= 100_000_000


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("case", BROKEN)
def test_a_name_that_is_no_model_ends_in_one_sentence(folder: Path, case: str) -> None:
    hostile(folder, BROKEN[case])
    for door in DOORS.values():
        if door is not kdna_convert.verify:
            with pytest.raises(FolderError, match="KD607"):
                door(folder)
    assert not all(check.ok for check in kdna_convert.verify(folder))


def test_the_error_shows_a_hostile_name_as_text(folder: Path) -> None:
    hostile(folder, "evil:f('\x1b[31m\\nkdna: all is well', '" + "x" * 4000 + "')")
    with pytest.raises(FolderError, match="KD611") as caught:
        kdna_convert.load(folder)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1500


# --- what a registry lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "timm:resnet18.a1_in1k",
        "resnet18(pretrained=False, num_classes=10, in_chans=1)",
        "mobilenetv2_100(act_layer='relu', drop_rate=0.1, global_pool='')",
        "vit_tiny_patch16_224(img_size=[64, 64])",
        "torchvision:resnet18(num_classes=3)",
        "kdna:digits",
        "kdna_convert.digits:digits_net",
        "kdna_convert.inputs.digits:digits_net",
        *(f"{layout.model}(num_classes=10)" for layout in LAYOUTS.values()),
    ],
)
def test_listed_architectures_with_plain_arguments_need_no_word(name: str) -> None:
    parsed = parse_name(name)
    assert is_listed(parsed)
    assert unusual_argument(parsed) is None


def test_kdnas_own_factories_are_those_that_it_has() -> None:
    assert set(FACTORIES["kdna_convert.api.layouts"]) == {each.factory.__name__ for each in LAYOUTS.values()}
    assert FACTORIES["kdna_convert.inputs.digits"] == (digits_net.__name__,)


def test_a_listed_net_is_built_without_its_pretrained_weights(
    folder: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("timm.create_model", lambda name, **how: asked.append(how) or nn.Linear(1, 1))
    with pytest.raises(KdnaError):
        kdna_convert.load(hostile(folder, "resnet18(num_classes=4)"))
    assert asked == [{"pretrained": False, "num_classes": 4}]


# --- the caller's word ----------------------------------------------------------------------------------------------

NET = "from kdna_convert.inputs.digits import digits_net\ndef factory(n=1):\n    return digits_net()\n"


@pytest.fixture
def foreign(folder: Path) -> Path:
    """A folder that names a factory which is here, and that is not trusted."""
    (folder.parent / "net.py").write_text(NET)
    return rename(folder, "net.py:factory(n=2)")


class BuiltError(KdnaError):
    """Raised in place of building a net."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doors end where they would build the net."""

    def build(permit: Permit, folder: Path) -> None:
        raise BuiltError("KD607", f"{permit.name.factory} in {folder} is built, limit {permit.limit}")

    monkeypatch.setattr(sys.modules["kdna_convert.network.folder.load"], "rebuild", build)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("name", DOORS | MODEL_DOORS)
def test_every_door_takes_the_callers_word(foreign: Path, name: str) -> None:
    door = (DOORS | MODEL_DOORS)[name]
    if name == "verify":
        assert "factory in" in door(foreign, trust_code=True)[-1].detail
    else:
        with pytest.raises(BuiltError, match=r"factory in .* limit None"):
            door(foreign, trust_code=True)


def test_one_word_is_for_one_call(foreign: Path) -> None:
    kdna_convert.load(foreign, trust_code=True)
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(foreign)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_trust_code(foreign: Path, command: tuple[str, ...]) -> None:
    words = [word.replace("FOLDER", str(foreign)).replace("OUT", str(foreign.parent / "made")) for word in command]
    done = kdna(*words, "--trust-code")
    assert "factory in" in " ".join((done.stderr + done.stdout).split())


# --- the user's own folders -----------------------------------------------------------------------------------------


def own(folder: Path, name: str = "net.py:factory") -> Path:
    """A folder that this user's kdna wrote, made from a factory in the current directory."""
    Path("net.py").write_text(NET)
    made = open_folder(folder)
    ref = replace(made.plan.model, name=name, checkpoint=str(WEIGHTS))
    conversion = replace(made, plan=replace(made.plan, model=ref), origin=Origin())
    return save(conversion, folder.parent / "mine")


@pytest.mark.parametrize("name", ["net.py:factory", "net:factory", "digits.pkg.net:factory"])
def test_a_folder_that_kdna_wrote_here_needs_no_word(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in ("net", "digits"):
        monkeypatch.delitem(sys.modules, made, raising=False)
    Path("digits/pkg").mkdir(parents=True)
    Path("digits/pkg/net.py").write_text(NET)
    assert kdna_convert.load(own(folder, name))


def test_a_trusted_folder_is_fine_tuned_towards_its_original(folder: Path) -> None:
    tuned = kdna_convert.finetune(own(folder), data=X, steps=1, batch_size=4)
    assert kdna_convert.load(save(tuned, folder.parent / "tuned"))


def test_a_trusted_folder_may_be_moved_and_copied(folder: Path) -> None:
    mine = own(folder)
    Path("elsewhere").mkdir()
    assert kdna_convert.load(shutil.copytree(mine, "elsewhere/copy"))
    assert kdna_convert.load(mine.rename("elsewhere/moved"))


def test_a_changed_folder_needs_a_new_word(folder: Path) -> None:
    mine = own(folder)
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(rename(mine, "net.py:factory(n=3)"))


def test_a_changed_source_file_needs_a_new_word(folder: Path) -> None:
    mine = own(folder)
    Path("net.py").write_text(touching(folder.parent / "ran") + NET)
    with pytest.raises(FolderError, match=r"KD611: .*net\.py, which has changed since the folder was trusted"):
        kdna_convert.load(mine)
    assert nothing_ran(folder)
    assert kdna("trust", mine, "--yes").exit_code == 0
    assert kdna_convert.load(mine)


def test_the_same_source_file_elsewhere_needs_a_new_word(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that it imports are found beside it, and are others there."""
    mine = own(folder).resolve()
    Path("strange").mkdir()
    shutil.copy("net.py", "strange")
    monkeypatch.chdir("strange")
    with pytest.raises(FolderError, match=r"KD611: .*was trusted with .*net\.py"):
        kdna_convert.load(mine)


def test_a_missing_source_file_says_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, home = own(folder).resolve(), Path.cwd()
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    with pytest.raises(FolderError, match=r"KD607: .*is not there; go to the directory") as caught:
        kdna_convert.load(mine)
    assert str(home) in caught.value.message


def test_what_is_made_of_a_folder_opened_with_a_module_is_not_trusted(folder: Path, shell: str) -> None:
    hostile(folder, shell)
    again = save(kdna_convert.code(folder, codec="fp16", model=digits_net()), folder.parent / "again")
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(again)
    assert nothing_ran(folder)


def test_what_is_made_of_a_trusted_folder_is_trusted(foreign: Path) -> None:
    again = save(kdna_convert.code(foreign, codec="fp16", trust_code=True), foreign.parent / "again")
    assert kdna_convert.load(again)


def test_an_entry_is_private_and_one_that_others_may_write_counts_for_nothing(folder: Path) -> None:
    mine = own(folder)
    entry = remember(read_claim(mine))
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    entry.chmod(0o666)
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(mine)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"sha256": 1}', "[" * 100_000])
def test_a_damaged_entry_counts_for_nothing(folder: Path, text: str) -> None:
    mine = own(folder)
    entry = remember(read_claim(mine))
    entry.write_text(text)
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(mine)


def test_a_full_configuration_directory_forgets_the_oldest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent / "configuration"))
    monkeypatch.setattr("kdna_convert.network.folder.trust._KEPT", 2)
    claim = read_claim(own(folder))
    for number in range(4):
        os.utime(remember(replace(claim, sha256=f"{number}")), (number, number))
    left = {path.stem for path in (folder.parent / "configuration/kdna/trusted").iterdir()}
    assert len(left) == 2
    assert "0" not in left


def test_a_folder_is_written_where_the_configuration_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent / "file"))
    mine = own(folder)
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(mine)
    assert kdna_convert.load(mine, trust_code=True)


def test_listed_nets_leave_no_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent / "configuration"))
    save(open_folder(folder), folder.parent / "again")
    assert not (folder.parent / "configuration").exists()


# --- kdna trust -----------------------------------------------------------------------------------------------------


def test_kdna_trust_shows_what_would_run_and_asks(foreign: Path) -> None:
    done = kdna("trust", foreign)
    assert done.exit_code == 2  # nobody to ask
    assert "factory(n=2)" in done.stdout
    assert "net.py" in done.stdout
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.load(foreign)
    assert kdna("trust", foreign, "--yes").exit_code == 0
    assert kdna_convert.load(foreign)


@pytest.mark.parametrize(("answer", "trusted"), [("y", True), ("n", False), ("", False)])
def test_kdna_trust_takes_an_answer(foreign: Path, answer: str, trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdna_convert.cli.commands.trust.in_terminal", lambda: True)
    assert (kdna("trust", foreign, input=f"{answer}\n").exit_code == 0) is trusted
    assert remember(read_claim(foreign)).exists()


def test_kdna_trust_runs_nothing(folder: Path, shell: str) -> None:
    done = kdna("trust", hostile(folder, shell), "--json", "--yes")
    assert json.loads(done.stdout)["runs"].startswith("runs getoutput('touch")
    assert nothing_ran(folder)


def test_kdna_trust_has_nothing_to_do_for_a_listed_net(folder: Path) -> None:
    done = kdna("trust", folder)
    assert done.exit_code == 0
    assert "nothing to trust" in done.stderr


def test_kdna_trust_refuses_a_damaged_folder(foreign: Path) -> None:
    (foreign / "recipe.yaml").write_text("other")
    assert "KD603" in kdna("trust", foreign, "--yes").stderr


# --- a module in place of the name ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", sorted(DOORS.keys() - {"freeze"}))
def test_every_door_takes_a_module_in_place_of_the_name(folder: Path, name: str, shell: str) -> None:
    hostile(folder, shell)
    mine = fit_weights(digits_net(), read_state_dict(str(WEIGHTS)), "").eval()
    before = {key: tensor.clone() for key, tensor in mine.state_dict().items()}
    given = mine if not name.startswith(("load", "open")) else digits_net()  # these convert it in place
    DOORS[name](folder, model=given)
    assert all(torch.equal(tensor, before[key]) for key, tensor in mine.state_dict().items())
    assert nothing_ran(folder)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("script", [True, False], ids=["script", "notebook"])
def test_a_net_of_a_script_or_notebook_takes_a_module(
    folder: Path, script: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(folder.parent / "net.py"), raising=False)
    if not script:
        monkeypatch.delattr(sys.modules["__main__"], "__file__")
    mine = own(folder, "__main__:factory")
    for name, door in (DOORS | MODEL_DOORS).items():
        if name != "verify":
            with pytest.raises(FolderError, match=r"KD607: .*a class of a notebook or a script; .*pass model="):
                door(mine)
    assert kdna_convert.load(mine, model=digits_net())


def test_a_module_with_the_originals_weights_is_the_original(folder: Path, shell: str) -> None:
    hostile(folder, shell)
    mine = fit_weights(digits_net(), read_state_dict(str(WEIGHTS)), "")
    assert kdna_convert.evaluate(folder, data=X, model=mine).agreement is not None
    assert kdna_convert.evaluate(folder, data=X, model=digits_net()).agreement is None
    with pytest.raises(FolderError, match=r"KD607: .*model= with the original's weights"):
        kdna_convert.finetune(folder, data=X, steps=1, model=digits_net())
    assert nothing_ran(folder)


def test_a_conversion_opened_with_a_module_does_not_build_its_name(folder: Path, shell: str) -> None:
    opened = open_folder(hostile(folder, shell), model=digits_net())
    assert kdna_convert.evaluate(opened, data=X).agreement is None
    with pytest.raises(FolderError, match="KD611"):
        kdna_convert.finetune(opened, data=X, steps=1)
    assert nothing_ran(folder)


@pytest.mark.usefixtures("quick_predictions")
def test_a_conversion_of_a_module_keeps_it_as_the_original() -> None:
    class Mine(tiny.Net):
        """A class that no import finds."""

    net, images = Mine(), tiny.noise(24)
    made = kdna_convert.convert(net, recipe=Recipe(scheme="cp", fit={"sweeps": 2}), data=images, target_params=0.7)
    assert kdna_convert.finetune(made, data=images, steps=1, batch_size=4).report.finetune is not None
