"""KernelDNA's own nets, for training from scratch: nets of timm, two of them deeper, with shared kernels.

Source: KernelDNA (arXiv 2503.23379) and its release. In a cluster of layers the parent keeps a kernel of its own, and
each kid uses it,

    y = norm_kid(conv(x * gate(x), P (1 + f)(1 + s)))

with f per filter and s per tap (none at 1x1), both 0 at first, and its own norm and `se` gate. As in the release: which
layers are kids of which parents, and all tensors of the gate (fc1 without bias to a quarter of the block's channels, a
norm with two numbers per hidden channel, fc2 with bias), so the number of parameters is the same. Changed: the gate's
norm is over the hidden channels of each image, not over the batch, so that a batch of one trains; and 2 sigmoid, which
is 1 at zero, replaces sigmoid, so that a kid starts as its parent. Cost of a kid: out + taps + 2 c h + c + 2 h
parameters instead of its kernel, for c input channels and h hidden ones. Loses if a pretrained net is good enough:
these nets are trained from scratch, and the two deeper ones take more multiply-adds than the nets that they replace.

A factory is a MODEL, as `kdna_convert.api.layouts:kerneldna_resnet18(num_classes=10)`. It draws from torch's global
random state, and its arguments are those of timm's net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..core.specs import Family, Layer
from ..network.derive import derive
from ..routing import Routing, attach
from ..routing.se import Se


def kerneldna_resnet18(**kwargs: Any) -> nn.Module:
    """9.241 M parameters, 2.277 GMACs. Stages 3 and 4 have three blocks, FS-SF-SF: three kernels for six 3x3 layers."""
    model = _timm("kerneldna_resnet18", "resnet18", layers=(2, 2, 3, 3), **kwargs)
    for stage in ("layer3", "layer4"):
        _share(model, f"{stage}.1.conv2", (f"{stage}.0.conv2", f"{stage}.1.conv1"), Se(norm=True))
        _share(model, f"{stage}.2.conv2", (f"{stage}.2.conv1",), Se(norm=True))
    return model


def kerneldna_resnet50(**kwargs: Any) -> nn.Module:
    """22.778 M parameters, 4.308 GMACs. Stage 3 has one more block; every second 3x3 of stages 3 and 4 is a kid."""
    model = _timm("kerneldna_resnet50", "resnet50", layers=(3, 4, 7, 3), **kwargs)
    for stage, kids in (("layer3", (1, 3, 5)), ("layer4", (1,))):
        for kid in kids:
            _share(model, f"{stage}.{kid + 1}.conv2", (f"{stage}.{kid}.conv2",), Se(norm=True))
    return model


def kerneldna_mobilenetv2(**kwargs: Any) -> nn.Module:
    """3.137 M parameters, 0.301 GMACs. The 1x1 layers of five blocks are kids of the last block of their stage."""
    return _with_pointwise_kids(_timm("kerneldna_mobilenetv2", "mobilenetv2_100", **kwargs))


def kerneldna_mobilenetv2_050(**kwargs: Any) -> nn.Module:
    """The same at half the width: 1.878 M parameters, 0.097 GMACs."""
    return _with_pointwise_kids(_timm("kerneldna_mobilenetv2_050", "mobilenetv2_050", **kwargs))


@dataclass(frozen=True)
class Blueprint:
    """The factory of a layout, and the name of the timm net that it replaces."""

    factory: Callable[..., nn.Module]
    plain: str

    @property
    def model(self) -> str:
        """The factory as MODEL."""
        return f"{__name__}:{self.factory.__name__}"


LAYOUTS = {
    "kerneldna-resnet18": Blueprint(kerneldna_resnet18, "resnet18"),
    "kerneldna-resnet50": Blueprint(kerneldna_resnet50, "resnet50"),
    "kerneldna-mobilenetv2": Blueprint(kerneldna_mobilenetv2, "mobilenetv2_100"),
    "kerneldna-mobilenetv2-050": Blueprint(kerneldna_mobilenetv2_050, "mobilenetv2_050"),
}


def _timm(name: str, plain: str, **kwargs: Any) -> nn.Module:
    """timm's net under another name, so that its pretrained_cfg does not name timm's weights."""
    model: nn.Module = timm.create_model(plain, pretrained_cfg={"architecture": name}, **kwargs)
    return model


def _with_pointwise_kids(model: nn.Module) -> nn.Module:
    """All blocks of each stage except the first, which has other channels."""
    for stage, last in (("blocks.2", 2), ("blocks.3", 3), ("blocks.4", 2), ("blocks.5", 2)):
        for conv, reduction in (("conv_pw", 4), ("conv_pwl", 24)):  # of a projection's channels: six times the block's
            kids = [f"{stage}.{block}.{conv}" for block in range(1, last)]
            _share(model, f"{stage}.{last}.{conv}", kids, Se(reduction=reduction, norm=True))
    return model


def _share(model: nn.Module, parent: str, kids: Iterable[str], gate: Routing) -> None:
    """Let the kids use the parent's kernel, in place, each with its own scales and gate."""
    weight: Any = model.get_submodule(parent).weight
    members = (parent, *kids)
    derive(model, Family("kerneldna", members), {"P": weight}, [{}, *(_no_scales(weight) for _ in members[1:])])
    seed = int(torch.randint(2**31, (), device="cpu"))
    for kid in members[1:]:
        attach(model, [Layer(kid, "Conv2d", tuple(weight.shape))], gate, seed)


def _no_scales(weight: Tensor) -> dict[str, Tensor]:
    """f and s of a kid that equals its parent."""
    scales = {"f": weight.new_zeros(len(weight)), "s": weight.new_zeros(weight.shape[2:])}
    return {letter: scale for letter, scale in scales.items() if letter == "f" or scale.numel() > 1}
