"""A folder of timm: timm's own factory builds the net with its weights, arguments, classes and input."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from support.exports import clean_outputs, small_conversion, timm_conversion
from support.small_nets import images

from kdna_convert.core.errors import FolderError, ModelError
from kdna_convert.core.specs import DataConfig, ModelRef
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.export import EXPORTS, write_export

TIMM = EXPORTS["timm"]


def test_a_clean_process_builds_the_net_from_the_folder(tmp_path: Path) -> None:
    made = timm_conversion()
    write_export(TIMM, made, tmp_path / "net")
    script = """
import timm, torch
net = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
outputs = net(torch.from_numpy(images)).detach().numpy()
"""
    with torch.no_grad():
        torch.testing.assert_close(clean_outputs(script, tmp_path / "net", images()), made.model(images()))


def test_timm_knows_the_arguments_the_classes_and_the_input(tmp_path: Path) -> None:
    data = DataConfig((1, 12, 12), (0.4,), (0.2,), "bilinear", 0.9)
    name = "timm:test_resnet(pretrained=False, num_classes=3, in_chans=1)"
    made = replace(timm_conversion("test_resnet", num_classes=3, in_chans=1), data=data)
    made = replace(made, plan=replace(made.plan, model=ModelRef(name)))
    write_export(TIMM, made, tmp_path / "net")
    net = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)
    assert (net.num_classes, net.conv1[0].in_channels) == (3, 1)
    config = timm.data.resolve_model_data_config(net)
    expected = {"input_size": (1, 12, 12), "interpolation": "bilinear", "crop_pct": 0.9}
    assert {key: config[key] for key in expected} == expected
    assert (list(config["mean"]), list(config["std"])) == ([0.4], [0.2])
    assert json.loads((tmp_path / "net" / "config.json").read_text())["architecture"] == "test_resnet"


def named(made: Conversion, name: str) -> Conversion:
    return replace(made, plan=replace(made.plan, model=ModelRef(name)))


def test_nets_that_timm_does_not_build_are_refused(tmp_path: Path) -> None:
    for name in ("torchvision:resnet18", "nets.py:factory"):
        with pytest.raises(ModelError, match=rf"KD312: .*{name} is not a net of timm's list; pass --to merged"):
            write_export(TIMM, named(small_conversion(), name), tmp_path / "net")
    with pytest.raises(ModelError, match=r"KD312: .*timm cannot describe resnet18: .*--to merged"):
        write_export(TIMM, named(small_conversion(), "resnet18"), tmp_path / "net")
    with pytest.raises(ModelError, match=r"KD312: .*timm does not load the folder: .*--to merged"):
        write_export(TIMM, named(timm_conversion(), "timm:test_resnet(no_such_argument=1)"), tmp_path / "net")
    assert not [*tmp_path.iterdir()]


def test_a_routing_that_depends_on_the_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="KD606"):
        write_export(TIMM, named(small_conversion("se"), "timm:test_resnet"), tmp_path / "net")
    assert not [*tmp_path.iterdir()]
