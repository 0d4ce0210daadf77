"""Laws of MODEL: the grammar of names, strict checkpoints that execute nothing, and the input of a net."""

import argparse
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.small_nets import Versioned
from torch import nn

from kdna_convert.core.errors import CheckpointError, DataError, KdnaError, ModelError, NumericsError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.models import (
    check_finite,
    example_input,
    fit_weights,
    load_model,
    override,
    parse_name,
    read_state_dict,
    state_digest,
)
from kdna_convert.inputs.models.containers import CONTAINERS, CheckpointFile
from kdna_convert.inputs.models.inputs import data_config
from kdna_convert.inputs.models.weights import fit_original, prefix_of, read_weights

FACTORY = """
from torch import nn
from beside import WIDTH

def tiny(width=WIDTH, bias=True):
    return nn.Sequential(nn.Conv2d(3, width, 1, bias=bias), nn.BatchNorm2d(width))

def fails():
    raise ValueError("no such luck")

def number():
    return 7
"""


@pytest.fixture
def factory(tmp_path: Path) -> str:
    """A model file with an import from the folder it lies in; its path."""
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    (tmp_path / "net.py").write_text(FACTORY)
    return str(tmp_path / "net.py")


def code_of(error: pytest.ExceptionInfo[KdnaError]) -> str:
    assert "\n" not in str(error.value), "an error is one line"
    return error.value.code


# --- the grammar


@pytest.mark.parametrize(
    ("text", "source", "path", "factory", "args", "kwargs"),
    [
        ("resnet18", "timm", "resnet18", "", (), {}),
        ("resnet18.a1_in1k", "timm", "resnet18.a1_in1k", "", (), {}),
        ("timm:resnet18(num_classes=10)", "timm", "resnet18", "", (), {"num_classes": 10}),
        ("torchvision:resnet18", "torchvision", "resnet18", "", (), {}),
        ("hf-hub:timm/resnet18.a1_in1k", "timm", "hf-hub:timm/resnet18.a1_in1k", "", (), {}),
        ("local-dir:nets/mine", "timm", "local-dir:nets/mine", "", (), {}),
        ("nets/mine.py:build", "file", "nets/mine.py", "build", (), {}),
        ("nets (old)/mine.py:build(2, act='relu')", "file", "nets (old)/mine.py", "build", (2,), {"act": "relu"}),
        ("a.b:Net.tiny(size=(1, 2))", "module", "a.b", "Net.tiny", (), {"size": (1, 2)}),
        ("a.b:f('(', -1, None)", "module", "a.b", "f", ("(", -1, None), {}),
    ],
)
def test_a_name_holds_source_path_and_arguments(
    text: str, source: str, path: str, factory: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    name = parse_name(text)
    assert (name.source, name.path, name.factory, name.args, name.kwargs) == (source, path, factory, args, kwargs)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("resnet18(width=open('x'))", "KD302", "open('x') is not a Python literal"),
        ("resnet18(**{'a': 1})", "KD302", "key=value"),
        ("resnet18(width=)", "KD302", "NAME(key=value"),
        ("resnet18(10)", "KD302", "by name only"),
        ("timm:", "KD301", "after the colon"),
        ("timm/resnet18", "KD301", "hf-hub:"),
        ("some-thing:resnet18", "KD301", "torchvision:NAME"),
        ("net.py", "KD302", "net.py:factory"),
        ("", "KD301", "not a model's name"),
    ],
)
def test_a_malformed_name_is_refused_with_an_example(text: str, code: str, says: str) -> None:
    with pytest.raises(ModelError) as error:
        parse_name(text)
    assert code_of(error) == code
    assert says in str(error.value)


def test_a_folder_as_a_model_name_is_refused_with_the_command_to_use(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"kdna_convert\.load.*local-dir:") as error:
        load_model(str(tmp_path))
    assert code_of(error) == "KD301"


# --- building


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("resnet81", "resnet18"), ("torchvision:resnett18", "resnet18"), ("resnet18.a1_in1", "resnet18.a1_in1k")],
)
def test_an_unknown_name_is_refused_with_a_close_one(text: str, suggestion: str) -> None:
    with pytest.raises(ModelError, match=f"did you mean.*{suggestion}") as error:
        load_model(text)
    assert code_of(error) == "KD301"


@pytest.mark.parametrize("name", ["test_resnet", "torchvision:squeezenet1_1"])
def test_random_weights_are_the_same_for_the_same_name_and_leave_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, second = load_model(f"{name}(pretrained=False)"), load_model(name, pretrained=False)
    assert first.ref.sha256 == second.ref.sha256 == state_digest(first.model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_is_float32_in_eval_mode(factory: str) -> None:
    loaded = load_model(f"{factory}:tiny")
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.ref.name == f"{factory}:tiny"


def test_a_factory_takes_positional_and_named_arguments_and_imports_from_its_own_folder(factory: str) -> None:
    model = load_model(f"{factory}:tiny(6, bias=False)").model
    assert [tuple(parameter.shape) for parameter in model[0].parameters()] == [(6, 3, 1, 1)]  # type: ignore[index]


def test_a_module_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "standing_here.py").write_text("from torch import nn\nNet = nn.Identity\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_model("standing_here:Net").model, nn.Identity)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{file}:tinny", "did you mean tiny"),
        ("{file}:fails", "no such luck .*net.py, line 9"),
        ("{file}:number", "returned int"),
        ("{file}:tiny(depth=3)", "depth"),
        ("{file}x.py:tiny", "no such file"),
        ("no.such.package:tiny", "timm:, torchvision:"),
        ("test_resnet(depth=3, pretrained=False)", "depth"),
    ],
)
def test_a_factory_that_builds_no_model_is_named_with_the_cause(factory: str, target: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as error:
        load_model(target.format(file=factory))
    assert code_of(error) == "KD302"


def test_weights_that_cannot_be_downloaded_name_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"no route.*--checkpoint FILE.*test_resnet\(pretrained=False\)") as error:
        load_model("test_resnet")
    assert code_of(error) == "KD305"
    assert load_model("test_resnet", pretrained=False).model is not None


def test_a_detection_net_with_random_weights_fetches_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("a net with random weights reached for the network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    loaded = load_model("torchvision:ssdlite320_mobilenet_v3_large", pretrained=False)
    assert loaded.data.input_size == (3, 320, 320)
    assert loaded.data.mean == (0.0,) * 3, "it normalizes by itself"


# --- checkpoints


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))


def write(path: Path, state: dict[str, Any]) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


def test_a_factory_file_is_imported_again_only_if_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("from torch import nn\n\nclass Own(nn.Linear):\n    pass\n\ndef own():\n    return Own(2, 2)\n")
    first, again = (type(load_model(f"{path}:own").model) for _ in range(2))
    assert first is again
    path.write_text(path.read_text().replace("own()", "own(width=2)"))
    assert type(load_model(f"{path}:own").model) is not first


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "th", "bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.module."])
def test_a_state_dict_is_read_from_any_file_without_the_prefixes_of_wrappers(
    tmp_path: Path, suffix: str, prefix: str
) -> None:
    state = net(1).state_dict()
    path = write(tmp_path / f"net.{suffix}", {f"{prefix}{key}": value for key, value in state.items()})
    read = read_state_dict(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)
    assert state_digest(fit_weights(net(2), read, path)) == state_digest(net(1))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_state_dict_inside_a_checkpoint_dict_is_found(tmp_path: Path, container: str) -> None:
    beside = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),  # as training scripts store them
        "best": np.float64(0.93),
        "scores": [np.float32(0.5), np.int64(7)],
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
    }
    path = write(tmp_path / "last.pth.tar", {**beside, container: net(1).state_dict()})
    read, key = read_weights(path)
    assert key == container
    assert state_digest(fit_weights(net(2), read, path)) == state_digest(net(1))


def test_an_averaged_model_of_torch_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "swa.pth", torch.optim.swa_utils.AveragedModel(net(1)).state_dict())
    assert state_digest(fit_weights(net(2), read_state_dict(path), path)) == state_digest(net(1))


@pytest.mark.parametrize("prefix", ["model.", "net.", "student.backbone."])
def test_the_net_inside_a_larger_module_is_found_by_its_names(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{key}": value for key, value in net(1).state_dict().items()}
    path = write(tmp_path / "epoch=3.ckpt", {"state_dict": {**state, "criterion.weight": torch.ones(2)}})
    assert prefix_of(net(2), read_state_dict(path), path) == prefix
    assert state_digest(fit_weights(net(2), read_state_dict(path), path)) == state_digest(net(1))


def test_two_nets_in_one_file_need_a_prefix(tmp_path: Path) -> None:
    states = {"student": net(1).state_dict(), "teacher": net(2).state_dict()}
    flat = {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}
    path = write(tmp_path / "both.pth", flat)
    with pytest.raises(CheckpointError, match=r"KD303.*student\., teacher\..*--checkpoint-prefix"):
        fit_weights(net(3), read_state_dict(path), path)
    for prefix in ("teacher", "teacher."):
        chosen = CheckpointFile(path, prefix=prefix)
        assert state_digest(fit_weights(net(3), read_state_dict(chosen), chosen)) == state_digest(net(2))
    with pytest.raises(CheckpointError, match=r"KD303.*begin with student, teacher"):
        fit_weights(net(3), flat, CheckpointFile(path, prefix="pupil"))


def test_a_key_chooses_among_several_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "last.pth", {"ema": net(1).state_dict(), "runs": {"a.b": {"best": net(2).state_dict()}}})
    for key, seed in (("ema", 1), ("runs.a.b.best", 2)):
        chosen = CheckpointFile(path, key)
        assert state_digest(fit_weights(net(3), read_state_dict(chosen), chosen)) == state_digest(net(seed))
    with pytest.raises(CheckpointError, match=r"KD304.*no key raw; it has ema, runs"):
        read_state_dict(CheckpointFile(path, "raw"))


def test_weights_under_an_unknown_key_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "last.pth", {"epoch": 1, "generator": net(1).state_dict()})
    with pytest.raises(CheckpointError, match=r"KD304.*--checkpoint-key generator"):
        read_state_dict(path)


def test_the_weights_of_a_digest_are_found_again(tmp_path: Path) -> None:
    inside = {f"encoder.{key}": value for key, value in net(2).state_dict().items()}
    path = write(tmp_path / "last.pth", {"ema": net(1).state_dict(), "model": inside})
    for seed in (1, 2):
        assert state_digest(fit_original(net(3), path, state_digest(net(seed)))) == state_digest(net(seed))


def test_a_checkpoint_file_is_its_path_in_another_process_too() -> None:
    there = pickle.loads(pickle.dumps(CheckpointFile("a.pth", "ema", "net")))
    assert (there, there.key, there.prefix) == ("a.pth", "ema", "net")


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    path = write(tmp_path / "last.pth", {"state_dict": net(1).state_dict(), "state_dict_ema": net(2).state_dict()})
    assert torch.equal(read_state_dict(path)["conv.weight"], net(2).state_dict()["conv.weight"])


def test_a_model_with_a_child_called_module_keeps_its_own_keys(tmp_path: Path) -> None:
    def wrapped(seed: int) -> nn.Module:
        return nn.Sequential(OrderedDict(module=net(seed)))

    path = write(tmp_path / "net.pth", wrapped(1).state_dict())
    assert state_digest(fit_weights(wrapped(2), read_state_dict(path), path)) == state_digest(wrapped(1))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_net_with_a_version_takes_a_file_of_tensors_alone(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"net.{suffix}", dict(Versioned().state_dict()))
    assert fit_weights(Versioned(), read_state_dict(path), path) is not None


def test_a_normalization_without_its_counter_is_loaded(tmp_path: Path) -> None:
    state = {key: value for key, value in net(1).state_dict().items() if not key.endswith("num_batches_tracked")}
    path = write(tmp_path / "of_2018.pth", state)
    assert state_digest(fit_weights(net(2), read_state_dict(path), path)) == state_digest(net(1))


def test_a_net_that_refuses_its_tensors_is_kd303(tmp_path: Path) -> None:
    class Refusing(Versioned):
        def _load_from_state_dict(self, *_: Any) -> None:
            raise AssertionError("not these")

    path = write(tmp_path / "net.pth", dict(Versioned().state_dict()))
    with pytest.raises(CheckpointError, match="not these") as error:
        fit_weights(Refusing(), read_state_dict(path), path)
    assert code_of(error) == "KD303"


def test_two_keys_for_one_tensor_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pth", {"module.a": torch.zeros(1), "_orig_mod.a": torch.ones(1)})
    with pytest.raises(CheckpointError, match="both name a") as error:
        read_state_dict(path)
    assert code_of(error) == "KD303"


def test_a_mismatch_lists_missing_unexpected_and_misshapen_keys(factory: str, tmp_path: Path) -> None:
    state = {"0.weight": torch.zeros(5, 3, 1, 1), "1.weight": torch.zeros(4), "head.weight": torch.zeros(1)}
    path = write(tmp_path / "net.safetensors", state)
    with pytest.raises(CheckpointError) as error:
        load_model(f"{factory}:tiny", checkpoint=path)
    assert code_of(error) == "KD303"
    for part in ("missing: 0.bias", "1 unexpected: head.weight", "1 misshapen: 0.weight (5, 3, 1, 1) instead of (4, 3"):
        assert part in str(error.value)


def test_a_long_mismatch_lists_eight_keys_and_counts_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", {f"k{index}": torch.zeros(1) for index in range(10)})
    with pytest.raises(CheckpointError, match="10 unexpected: k0, k1, k2, k3, k4, k5, k6, k7 and 2 more"):
        fit_weights(nn.Identity(), read_state_dict(path), path)


def test_a_counter_stored_as_a_list_of_one_fits_its_scalar() -> None:
    state = net(1).state_dict() | {"norm.num_batches_tracked": torch.tensor([5])}
    assert fit_weights(net(2), state, "net.pth").state_dict()["norm.num_batches_tracked"] == 5


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "plain pickle"])
def test_a_hostile_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "net.pth", tmp_path / "ran"
    content = {"conv.weight": Hostile(trace)}
    if how == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="nothing was run") as error:
        read_state_dict(str(path))
    assert code_of(error) == "KD304"
    assert not trace.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"net.{suffix}"
    whole = Path(write(path, net().state_dict())).read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(CheckpointError) as error:
        read_state_dict(str(path))
    assert code_of(error) == "KD304"


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"epoch": 3, "weights": {"a": torch.zeros(1)}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as error:
        read_state_dict(str(tmp_path / "net.pth"))
    assert code_of(error) == "KD304"


def test_a_missing_checkpoint_is_named_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file") as error:
        load_model("test_resnet", checkpoint=str(tmp_path / "gone.pth"))
    assert code_of(error) == "KD304"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_named(factory: str, tmp_path: Path, value: float) -> None:
    state = load_model(f"{factory}:tiny").model.state_dict()
    state["0.weight"][2] = value
    path = write(tmp_path / "net.safetensors", state)
    with pytest.raises(NumericsError, match=r"0\.weight: 3 of 12 values") as error:
        load_model(f"{factory}:tiny", checkpoint=path)
    assert code_of(error) == "KD701"


def test_a_mask_of_minus_infinity_is_accepted() -> None:
    model = nn.Identity()
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    check_finite(model)
    model.register_buffer("mean", torch.tensor([math.inf]))
    with pytest.raises(NumericsError, match="mean"):
        check_finite(model)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_an_observer_that_has_seen_nothing_is_accepted_and_can_still_observe() -> None:
    observer = torch.ao.quantization.PerChannelMinMaxObserver()
    observer.register_buffer("seen", torch.tensor([math.inf]))
    check_finite(observer)
    state_digest(observer)
    observer(torch.ones(4, 3))
    assert observer.min_val.shape == (4,)
    observer.min_val.fill_(math.nan)
    with pytest.raises(NumericsError, match="min_val"):
        check_finite(observer)


def test_a_digest_tells_values_names_and_dtypes_apart() -> None:
    def holding(name: str, tensor: torch.Tensor) -> nn.Module:
        model = nn.Module()
        model.register_buffer(name, tensor)
        return model

    zeros = torch.zeros(4, 4)
    variants = [zeros, zeros + 1e-30, zeros.half(), zeros.bfloat16(), zeros.flatten(), torch.zeros(())]
    digests = [state_digest(holding("a", tensor)) for tensor in variants]
    assert len({*digests, state_digest(holding("b", zeros))}) == len(variants) + 1
    assert state_digest(holding("a", torch.zeros(4, 8)[:, ::2])) == digests[0], (
        "strides are no part of a tensor's value"
    )


# --- inputs


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "resnet10t"])
def test_a_timm_net_has_the_input_that_timm_resolves(name: str) -> None:
    loaded = load_model(name, pretrained=False)
    resolved = timm.data.resolve_data_config({}, model=loaded.model)
    assert {key: getattr(loaded.data, key) for key in resolved} == resolved


def test_every_torchvision_classifier_is_resized_and_cropped_as_its_weights_say() -> None:
    presets = {
        name: torchvision.models.get_model_weights(name).DEFAULT.transforms()
        for name in torchvision.models.list_models()
    }
    classifiers = {name: preset for name, preset in presets.items() if type(preset).__name__ == "ImageClassification"}
    assert len(classifiers) >= 80
    for name, preset in classifiers.items():
        config = data_config(parse_name(f"torchvision:{name}"), nn.Identity())
        assert config.input_size[1:] == tuple((preset.crop_size * 2)[:2]), name
        assert math.floor(config.input_size[1] / config.crop_pct) == preset.resize_size[0], name
        assert (list(config.mean), config.interpolation) == (preset.mean, preset.interpolation.value), name


def test_a_named_torchvision_weight_brings_its_own_transform() -> None:
    newest, first = (
        data_config(parse_name(f"torchvision:resnet50{arguments}"), nn.Identity())
        for arguments in ("", "(weights='ResNet50_Weights.IMAGENET1K_V1')")
    )
    assert (224 / newest.crop_pct, 224 / first.crop_pct) == pytest.approx((232, 256))


def test_asking_timm_for_other_channels_or_another_size_changes_the_input() -> None:
    data = load_model("test_resnet(in_chans=1)", pretrained=False).data
    assert (data.input_size[0], len(data.mean), len(data.std)) == (1, 1, 1)
    assert load_model("test_vit(img_size=96)", pretrained=False).data.input_size == (3, 96, 96)


def test_a_factory_without_a_pretrained_cfg_takes_imagenets_images(factory: str) -> None:
    assert load_model(f"{factory}:tiny").data == DataConfig()


@pytest.mark.parametrize("carried", ["[1]", "{'mean': (0.5,) * 2}", "{'input_size': 'big'}", "{'crop_pct': 3.0}"])
def test_an_invalid_pretrained_cfg_is_named(tmp_path: Path, carried: str) -> None:
    body = f"    model = nn.ReLU()\n    model.pretrained_cfg = {carried}\n    return model\n"
    (tmp_path / "net.py").write_text(f"from torch import nn\n\ndef net():\n{body}")
    with pytest.raises(ModelError, match="pretrained_cfg") as error:
        load_model(f"{tmp_path}/net.py:net")
    assert code_of(error) == "KD302"


def test_override_changes_what_is_given_and_nothing_else() -> None:
    config = DataConfig()
    assert override(config) == config
    changed = override(config, mean=[0.5], std=[0.5, 0.4, 0.3], input_size=[96], crop_pct=1.0, interpolation="bilinear")
    assert changed == DataConfig((3, 96, 96), (0.5,) * 3, (0.5, 0.4, 0.3), "bilinear", 1.0)
    assert override(config, input_size=(64, 32)).input_size == (3, 64, 32)
    assert override(config, input_size=(1, 8, 8)).mean == (pytest.approx(0.449),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": [0.5, 0.5]},
        {"std": [0.0]},
        {"std": [math.nan]},
        {"input_size": [0]},
        {"crop_pct": 0.0},
        {"crop_pct": 1.5},
        {"interpolation": "sharp"},
    ],
)
def test_override_refuses_what_no_transform_accepts(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError) as error:
        override(DataConfig(), **wrong)
    assert code_of(error) == "KD406"


def test_an_example_input_is_the_same_each_time_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = (example_input(DataConfig((3, 8, 6)), batch=2) for _ in range(2))
    assert first.shape == (2, 3, 8, 6)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
