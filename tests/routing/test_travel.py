"""Routed nets in folders, in two processes and in onnxruntime."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.routings import groups, learned, routed
from torch import Tensor, nn

import kdna_convert
from kdna_convert.core.specs import DataConfig, ModelRef, Plan, Route, Totals
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.network.folder import Conversion, open_folder, save, verify
from kdna_convert.routing import ROUTINGS, attach_routes, routers
from kdna_convert.stages.export import EXPORTS, write_export

PLAIN, BLOCKS = "kdna_convert.inputs.digits:digits_net", "timm:mobilenetv2_035(num_classes=3, pretrained=False)"
routings = pytest.mark.parametrize("name", ROUTINGS)


@routings
@pytest.mark.parametrize("scheme", ["dense", "basis"])
def test_a_routed_net_survives_a_folder_to_the_bit(name: str, scheme: str, tmp_path: Path) -> None:
    model, size = (BLOCKS, 32) if name == "dymn" else (PLAIN, 12)
    text = f"scheme: {scheme}\nrouting: {name}\ncalibration: {{images: 16, heldout: 8, batch: 8}}\n"
    text += "" if scheme == "dense" else "options: {rank: 3}\n"
    data = torch.randn((24, 3 if name == "dymn" else 1, size, size), generator=torch.Generator().manual_seed(0))
    conversion = kdna_convert.convert(
        model,
        recipe=parse_recipe(text),
        data=data,
        inputs={"input_size": tuple(data.shape[1:])},
    )
    assert conversion.report.divergence.agreement == 1 or scheme != "dense"
    learned(conversion.model)
    opened = open_folder(save(conversion, tmp_path / "net"))
    x = data[:3]
    with torch.no_grad():
        assert torch.equal(opened.model(x), conversion.model.eval()(x))
    assert opened.plan.routes == conversion.plan.routes
    added = [p.numel() for router in routers(opened.model).values() for p in router.parameters()]
    assert opened.plan.routed == sum(added)
    assert all(check.ok for check in verify(tmp_path / "net"))


class DepthwiseNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU6(),
            nn.Conv2d(8, 12, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12),
            nn.ReLU(),
            nn.Conv2d(12, 6, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


@routings
def test_another_runtime_gives_the_same_answers_for_any_batch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = DepthwiseNet().eval()
    routes = tuple(Route(name, group) for group in groups(ROUTINGS[name](), net))
    attach_routes(net, routes)
    learned(net)
    totals = Totals(1, 1, 1)
    conversion = Conversion(
        net, Plan(ModelRef("small"), (), (), totals, totals, routes=routes), DataConfig(input_size=(3, 8, 8)), ""
    )
    difference = write_export(EXPORTS["onnx"], conversion, tmp_path / "net.onnx").difference
    assert difference is not None
    assert difference < 1e-4


def test_two_processes_take_the_same_step_as_one(tmp_path: Path) -> None:
    expected = {name: stepped(name, *routed(_kind(name), ROUTINGS[name](), batch=4)) for name in ROUTINGS}
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    for place in range(2):
        tensors = torch.load(tmp_path / f"{place}.pt", weights_only=True)
        for name, parameters in expected.items():
            assert tensors[name].keys() == parameters.keys()
            for key, parameter in parameters.items():
                torch.testing.assert_close(tensors[name][key], parameter, atol=1e-5, rtol=1e-4, msg=f"{name}: {key}")


def _kind(name: str) -> str:
    return "inverted" if name == "dymn" else "conv2d"


def stepped(name: str, net: nn.Module, x: Tensor, wrapped: Any = None) -> dict[str, Tensor]:
    """The routers' parameters after one step; the loss is a mean over images, so that halves add up."""
    run = net if wrapped is None else wrapped(net)
    own = {key: p for key, p in net.named_parameters() if ".gate." in key}
    optimizer = torch.optim.SGD(own.values(), lr=0.1)
    run(x).square().flatten(1).sum(1).mean().backward()
    optimizer.step()
    return {key: parameter.detach().clone() for key, parameter in own.items()}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        tensors = {}
        for name in ROUTINGS:
            net, x = routed(_kind(name), ROUTINGS[name](), batch=4)
            tensors[name] = stepped(name, net, x[rank::2], nn.parallel.DistributedDataParallel)
        torch.save(tensors, Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()
