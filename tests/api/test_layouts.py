"""The nets of the KernelDNA release: published sizes, sharing, initial outputs, and `kdna build`."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from support.command import kdna
from support.hostile import built_for
from torch import nn

import kdna_convert
from kdna_convert.api.build import build, fresh
from kdna_convert.api.layouts import LAYOUTS, kerneldna_mobilenetv2_050, kerneldna_resnet18
from kdna_convert.core.errors import ModelError
from kdna_convert.inputs.models import load_model
from kdna_convert.network.derive import derived_layers
from kdna_convert.network.stored import load_stored, stored_state
from kdna_convert.routing import routers

# Millions of parameters and billions of multiply-adds, computed from the release's code.
PUBLISHED = {
    "kerneldna-resnet18": (9.241, 2.277),
    "kerneldna-resnet50": (22.778, 4.308),
    "kerneldna-mobilenetv2": (3.137, 0.301),
    "kerneldna-mobilenetv2-050": (1.878, 0.097),
}
# Kid -> parent.
FS_SF_SF = {
    f"{stage}.{kid}": f"{stage}.{parent}"
    for stage in ("layer3", "layer4")
    for kid, parent in (("0.conv2", "1.conv2"), ("1.conv1", "1.conv2"), ("2.conv1", "2.conv2"))
}
EVERY_SECOND = {f"layer3.{kid}.conv2": f"layer3.{kid + 1}.conv2" for kid in (1, 3, 5)} | {
    "layer4.1.conv2": "layer4.2.conv2"
}
POINTWISE = {
    f"blocks.{stage}.{kid}.{conv}": f"blocks.{stage}.{parent}.{conv}"
    for stage, kid, parent in ((2, 1, 2), (3, 1, 3), (3, 2, 3), (4, 1, 2), (5, 1, 2))
    for conv in ("conv_pw", "conv_pwl")
}
SHARING = dict(zip(PUBLISHED, (FS_SF_SF, EVERY_SECOND, POINTWISE, POINTWISE), strict=True))
layouts = pytest.mark.parametrize("name", LAYOUTS)


@layouts
def test_a_layout_has_the_published_size(name: str) -> None:
    built = build(name)
    assert (round(built.after.params / 1e6, 3), round(built.after.macs / 1e9, 3)) == PUBLISHED[name]


@layouts
def test_exactly_the_kids_have_their_parents_kernel_and_a_gate(name: str) -> None:
    with torch.device("meta"):
        model = LAYOUTS[name].factory()
    derived, sharing = derived_layers(model), SHARING[name]
    assert {kid for kid in derived if not derived[kid].is_owner} == set(sharing) == set(routers(model))
    assert set(derived) == {*sharing, *sharing.values()}
    for kid, parent in sharing.items():
        assert derived[kid].shared is derived[parent].shared
        assert not len(derived[parent].adapter)


@layouts
def test_every_tensor_is_stored_once(name: str) -> None:
    with torch.device("meta"):
        model = LAYOUTS[name].factory()
    parameters = sum(p.numel() for p in model.parameters())
    state = model.state_dict(keep_vars=True)
    assert sum(t.numel() for t in state.values()) == parameters + sum(b.numel() for b in model.buffers())
    assert len({id(tensor) for tensor in state.values()}) == len(state)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("kerneldna-resnet18", {"layers": (2, 2, 3, 3), "zero_init_last": False, "num_classes": 7}),
        ("kerneldna-mobilenetv2-050", {"num_classes": 7}),
    ],
)
def test_at_first_a_layout_is_the_plain_net_with_its_kids_tied(name: str, arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    given = {key: value for key, value in arguments.items() if key != "layers"}
    model = LAYOUTS[name].factory(**given).eval()
    plain = timm.create_model(LAYOUTS[name].plain, **arguments).eval()
    state = {key: tensor for key, tensor in model.state_dict().items() if ".gate." not in key}
    state = {key: tensor for key, tensor in state.items() if ".adapter." not in key}
    state = {key.replace("parametrizations.weight.0.shared.P", "weight"): tensor for key, tensor in state.items()}
    state |= {f"{kid}.weight": state[f"{parent}.weight"] for kid, parent in SHARING[name].items()}
    plain.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), plain(x))


def test_a_kid_that_has_learned_is_the_parent_scaled_by_filter_and_tap() -> None:
    model = kerneldna_resnet18()
    kid, parent = model.layer3[0].conv2, model.layer3[1].conv2
    adapter = derived_layers(model)["layer3.0.conv2"].adapter
    with torch.no_grad():
        adapter["f"].normal_()
        adapter["s"].normal_()
    expected = parent.weight * (1 + adapter["f"])[:, None, None, None] * (1 + adapter["s"])
    torch.testing.assert_close(kid.weight, expected)


@layouts
def test_a_layout_trains_from_nothing_on_one_image_a_step(name: str) -> None:
    torch.manual_seed(0)
    without_zeros = {} if "mobilenet" in name else {"zero_init_last": False}
    model = LAYOUTS[name].factory(num_classes=3, **without_zeros).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    reached = set()
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(1, 3, 64, 64)), torch.tensor([1])).backward()
        reached |= {key for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert reached == {key for key, _ in model.named_parameters()}
    assert not any(router.is_identity() for router in routers(model).values())


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (fresh("kerneldna-mobilenetv2-050", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    drawn = ("conv_stem.weight", "blocks.2.1.conv_pw.gate.fc1.weight", "classifier.weight")
    assert not any(torch.equal(one[key], other[key]) for key in drawn)
    torch.manual_seed(1)
    assert torch.equal(kerneldna_mobilenetv2_050().state_dict()[drawn[1]], other[drawn[1]])


def test_a_layout_is_not_described_as_timms_net() -> None:
    assert kerneldna_mobilenetv2_050().pretrained_cfg["architecture"] == "kerneldna_mobilenetv2_050"
    assert not kerneldna_mobilenetv2_050().pretrained_cfg.get("hf_hub_id")


@layouts
def test_a_folder_may_name_a_layout(name: str, tmp_path: Path) -> None:
    model = built_for(f"{LAYOUTS[name].model}(num_classes=3)", tmp_path)
    assert set(routers(model)) == set(SHARING[name])


def test_what_build_writes_is_a_checkpoint_for_the_factory(tmp_path: Path) -> None:
    file = tmp_path / "fresh.safetensors"
    done = kdna("build", "kerneldna-mobilenetv2-050", "-o", file, "--seed", "3", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["after"]["bytes"] == file.stat().st_size
    assert f"kdna eval {printed['model']} --checkpoint TRAINED" in done.stderr
    loaded = load_model(printed["model"], checkpoint=str(file)).model.state_dict()
    expected = fresh("kerneldna-mobilenetv2-050", 3).state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())

    again = kdna("build", "kerneldna-mobilenetv2-050", "-o", file)
    assert (again.exit_code, again.stdout) == (2, "")
    assert "KD601" in again.stderr
    assert kdna("build", "kerneldna-mobilenetv2-050", "-o", file, "--force", "-q").stderr == ""
    assert torch.equal(load_file(file)["conv_stem.weight"], fresh("kerneldna-mobilenetv2-050").conv_stem.weight)


def test_a_layout_is_stored_and_filled_again_as_any_converted_net() -> None:
    model, other = fresh("kerneldna-mobilenetv2-050").eval(), fresh("kerneldna-mobilenetv2-050", 1).eval()
    stored = stored_state(model)
    assert "blocks.2.1.conv_pw.f" in stored
    assert "blocks.2.2.conv_pw.P" in stored
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load_stored(other, stored)(x), model(x))


def test_the_table_of_build(golden: object) -> None:
    golden("build", kdna("build", "kerneldna-resnet18").stdout)  # type: ignore[operator]


def test_an_unknown_layout_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    done = kdna("build", "kerneldna-resnet-18", "-o", tmp_path / "no.safetensors")
    assert (done.exit_code, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert "KD301" in done.stderr
    assert ", ".join(LAYOUTS) in done.stderr
    assert "did you mean kerneldna-resnet18?" in done.stderr
    with pytest.raises(ModelError, match="KD301"):
        kdna_convert.build("vgg16")


def test_a_place_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = kdna("build", "kerneldna-mobilenetv2-050", "-o", tmp_path / "file" / "fresh.safetensors")
    assert done.exit_code == 2
    assert "KD604" in done.stderr


def test_the_help_names_every_layout() -> None:
    text = " ".join(kdna("build", "--help").stdout.replace("│", " ").split())
    assert [name for name in LAYOUTS if name not in text] == []
