"""Small conversions to export, and what a clean process makes of an export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from support.small_nets import convert, route, small
from torch import Tensor, nn

from kdna_convert.core.specs import DataConfig, ModelRef, Plan, Totals
from kdna_convert.network.folder import Conversion
from kdna_convert.routing import routers

SIZE = (3, 12, 12)


def small_conversion(routing: str | None = None) -> Conversion:
    """A Small with derived weights; with a routing, that depends on its input."""
    net = small()
    with torch.no_grad():
        net.head.weight.mul_(100)  # what the layers do is then larger than the bias
    family, routes = convert(net), route(net, routing)
    numbers = torch.Generator().manual_seed(0)
    for router in routers(net).values():  # gates that change the outputs by more than any limit
        for parameter in router.parameters():
            nn.init.normal_(parameter, std=2, generator=numbers)
    totals = Totals(1, 1, 1)
    plan = Plan(ModelRef("small"), (family,), (), totals, totals, routes=routes)
    return Conversion(net.eval(), plan, DataConfig(input_size=SIZE), "scheme: cp\n")


def timm_conversion(name: str = "test_resnet(pretrained=False)", **arguments: object) -> Conversion:
    """A net of timm with two derived layers and normalization that is not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model(name.partition("(")[0], **arguments).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2)
    shapes: dict[tuple[int, ...], list[str]] = {}
    for layer, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            shapes.setdefault(tuple(module.weight.shape), []).append(layer)
    members = next(tuple(layers[:2]) for layers in shapes.values() if len(layers) > 1)
    plan = Plan(ModelRef(name), (convert(net, "cp", members),), (), Totals(1, 1, 1), Totals(1, 1, 1))
    return Conversion(net, plan, DataConfig(input_size=SIZE), "scheme: cp\n")


def difference(given: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number that is expected."""
    return float((given - expected).abs().max() / expected.abs().max())


def clean_outputs(script: str, place: Path, images: Tensor) -> Tensor:
    """The array `outputs` that a script in a process without kdna computes from `place` and the array `images`."""
    given, returned = (place.with_name(f"{place.name}-{which}.npy") for which in ("given", "returned"))
    np.save(given, images.numpy())
    lines = (
        f"import sys, numpy as np; place, images = {str(place)!r}, np.load({str(given)!r})",
        script,
        f"assert 'kdna_convert' not in sys.modules; np.save({str(returned)!r}, outputs)",
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(returned))
