"""The merged file: ordinary weights under the original's keys, written whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.small_nets import convert, images, route, small
from torch import nn

from kdna_convert.core.errors import FolderError
from kdna_convert.core.specs import DataConfig, ModelRef, Plan, Totals
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.export import write_export
from kdna_convert.stages.export.merged import Merged


def conversion(net: nn.Module, members: tuple[str, ...], routing: str | None = None) -> Conversion:
    family, routes = convert(net, "cp", members), route(net, routing)
    plan = Plan(ModelRef("x"), (family,), (), Totals(1, 1, 1), Totals(1, 1, 1), routes=routes)
    return Conversion(net, plan, DataConfig(), "scheme: cp\n")


def outputs(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(images())


def test_the_merged_file_loads_into_the_original_net(tmp_path: Path) -> None:
    converted = conversion(small(), ("body.0", "body.2", "last"), routing="se")
    path = write_export(Merged(), converted, tmp_path / "deep" / "merged.safetensors").file
    plain = small(3)
    plain.load_state_dict(load_file(path), strict=True)
    torch.testing.assert_close(outputs(plain), outputs(converted.model))
    assert len(list(converted.model.body[0].parametrizations)) == 1  # type: ignore[index,arg-type]
    with pytest.raises(FolderError, match="KD601"):
        write_export(Merged(), converted, path)
    write_export(Merged(), converted, path, force=True)
    with torch.no_grad():
        converted.model.last.gate.fc2.bias.fill_(1)  # type: ignore[union-attr,operator]
    with pytest.raises(FolderError, match="KD606"):
        write_export(Merged(), converted, tmp_path / "gated.safetensors")


def test_tied_weights_have_every_key(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].weight = net[1].weight
    keys = list(net.state_dict())
    path = write_export(Merged(), conversion(net, ("0",)), tmp_path / "merged.safetensors").file
    assert sorted(load_file(path)) == sorted(keys)
