"""config.json and the loaded net say which input and how many classes the conversion used."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.command import convert, kdna
from support.small_nets import convert as convert_small
from support.small_nets import small
from timm.models import PretrainedCfg
from torch import nn

from kdna_convert.core.errors import ModelError
from kdna_convert.core.specs import DataConfig, Layer, ModelRef, Plan, Totals
from kdna_convert.inputs.models import carried_cfg, load_model
from kdna_convert.network.folder import Conversion, load, open_folder, save
from kdna_convert.network.folder.config import class_count, described

DATA = DataConfig((3, 64, 48), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "bilinear", 0.9)


def saved(model: nn.Module, name: str, data: DataConfig, folder: Path, *members: str) -> dict[str, Any]:
    """config.json of a conversion of the model in that folder."""
    family = convert_small(model, "basis", members)
    layers = tuple(Layer(member, "Conv2d", tuple(model.get_submodule(member).weight.shape)) for member in members)
    plan = Plan(ModelRef(name), (family,), layers, Totals(1, 1, 1), Totals(1, 1, 1))
    save(Conversion(model, plan, data, "scheme: basis\n"), folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def of_input(cfg: Any) -> dict[str, Any]:
    """The part of a pretrained_cfg that says what the input is, as DataConfig has it."""
    fields = {key: cfg[key] for key in DataConfig.__dataclass_fields__ if key in cfg}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def stated(data: DataConfig) -> dict[str, Any]:
    """The fields of an input that a pretrained_cfg has."""
    return {key: value for key, value in vars(data).items() if value is not None}


@pytest.mark.parametrize("folded", [False, True])
def test_a_timm_net_says_what_the_conversion_used(tmp_path: Path, folded: bool) -> None:
    name = "test_resnet(num_classes=5, pretrained=False)"
    source = load_model(name)
    carried = dict(source.model.pretrained_cfg)
    assert (carried["num_classes"], carried["input_size"]) == (1000, (3, 160, 160))
    config = saved(source.model, name, DATA, tmp_path / "out", "layer1.0.conv2")
    net: Any = load(tmp_path / "out", folded=folded)
    for cfg in (config["pretrained_cfg"], net.pretrained_cfg):
        assert of_input(cfg) == stated(DATA)
        assert (cfg["num_classes"], cfg.get("pool_size")) == (5, None)
        assert "test_input_size" not in cfg
        assert cfg["first_conv"] == carried["first_conv"]
    assert (config["num_classes"], net.num_classes, net.default_cfg) == (5, 5, net.pretrained_cfg)
    assert timm.data.resolve_model_data_config(net) == stated(DATA)


def test_a_conversion_at_the_nets_own_size_changes_no_field(tmp_path: Path) -> None:
    source = load_model("test_resnet", pretrained=False)
    carried = dict(source.model.pretrained_cfg)
    assert described(source.model, source.data) == carried
    saved(source.model, "test_resnet", source.data, tmp_path / "out", "layer1.0.conv2")
    assert load(tmp_path / "out").pretrained_cfg == carried


def test_the_number_of_classes_is_that_of_the_real_classifier() -> None:
    net = timm.create_model("test_resnet", pretrained=False)
    net.fc = nn.Linear(net.fc.in_features, 7)
    assert class_count(net) == 7
    made = Conversion(net, Plan(ModelRef("x"), (), (), Totals(1, 1, 1), Totals(1, 1, 1)), DATA, "")
    assert (made.model.num_classes, made.model.pretrained_cfg["num_classes"]) == (7, 7)
    assert class_count(timm.create_model("test_resnet", pretrained=False, num_classes=0)) == 0
    assert class_count(nn.ReLU()) is None


@pytest.mark.parametrize(
    "carried", [None, {"input_size": [3, 12, 12], "num_classes": 4}, PretrainedCfg(url="https://x")]
)
def test_any_net_is_described_and_its_own_description_is_not_edited(tmp_path: Path, carried: Any) -> None:
    net: Any = small()
    if carried is not None:
        net.pretrained_cfg = carried
    before = carried_cfg(net)
    config = saved(net, "support.small_nets:small", DATA, tmp_path / "out", "body.0", "body.2")
    assert of_input(config["pretrained_cfg"]) == stated(DATA)
    assert "url" not in config["pretrained_cfg"]
    other: Any = small()
    other.pretrained_cfg = carried
    mine: Any = load(tmp_path / "out", model=other)
    assert of_input(carried_cfg(mine)) == stated(DATA)
    if carried is not None:
        assert type(mine.pretrained_cfg) is type(carried)
        assert carried_cfg(mine).get("num_classes") == before["num_classes"]
        assert (carried if isinstance(carried, dict) else vars(carried)) == before


def test_a_description_that_is_no_dict_is_refused() -> None:
    net: Any = nn.ReLU()
    net.pretrained_cfg = ["input_size"]
    with pytest.raises(ModelError, match=r"KD302: ReLU: .*list"):
        carried_cfg(net)


def test_a_dataclass_says_what_a_nets_input_is(tmp_path: Path) -> None:
    body = "    net = nn.ReLU()\n    net.pretrained_cfg = PretrainedCfg(input_size=(1, 9, 9), mean=(0.,), std=(1.,))\n"
    head = "from timm.models import PretrainedCfg\nfrom torch import nn\n\ndef net():\n"
    (tmp_path / "net.py").write_text(f"{head}{body}    return net\n")
    data = load_model(f"{tmp_path}/net.py:net").data
    assert (data.input_size, data.mean, data.std) == ((1, 9, 9), (0.0,), (1.0,))


def test_the_input_that_the_command_line_sets_is_in_the_folder(images: Path, tmp_path: Path) -> None:
    given = ["--input-size", "24", "--mean", "0.4", "--crop-pct", "0.8", "--interpolation", "bilinear"]
    made = kdna(*convert(images), *given, "-o", tmp_path / "out")
    assert made.exit_code == 0, made.output
    data = open_folder(tmp_path / "out").data
    assert (data.input_size, data.mean, data.crop_pct, data.interpolation) == ((3, 24, 24), (0.4,) * 3, 0.8, "bilinear")
    assert of_input(json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]) == stated(data)
    net = load(tmp_path / "out")
    assert of_input(net.pretrained_cfg) == stated(data)
    with torch.no_grad():
        assert net(torch.zeros(1, *net.pretrained_cfg["input_size"])).shape == (1, net.pretrained_cfg["num_classes"])
