"""KernelDNA's own nets, for training from scratch: timm's, two of them deeper, kernels shared in the release's way.

Source: KernelDNA (arXiv 2503.23379) and its release. In a cluster of layers the parent keeps a kernel of its own, and
each kid uses it,

    y = norm_kid(conv(x * gate(x), P (1 + f)(1 + s)))

with f by filter and s by tap (none at 1x1), both 0 at first, and a norm and an `se` gate of its own. Kept of the
release: which layers are kids, and whose; and every tensor of the gate - fc1 without bias to a quarter of the block's
channels, a norm of two numbers for each of those, fc2 with bias - so that the parameters are as many as there. Changed:
the gate's norm goes over the image's own hidden channels, not over the batch, for then a batch of one trains; and
2 sigmoid from zero stands for sigmoid, for then a kid starts as its parent. Cost of a kid: out + taps + 2 c h + c + 2 h
parameters in place of its kernel, for c input channels and h hidden ones. Loses where a pretrained net will do: these
are trained from nothing, and the two deeper ones make more multiply-adds than the nets whose place they take.

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
    """22.778 M parameters, 4.308 GMACs. In stage 3 one block more; every second 3x3 of stages 3 and 4 is a kid."""
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
    """A layout's factory, and the name of timm's net that it takes the place of."""

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
    """timm's net under another name: without it, the net would say that timm's weights are its own."""
    model: nn.Module = timm.create_model(plain, pretrained_cfg={"architecture": name}, **kwargs)
    return model


def _with_pointwise_kids(model: nn.Module) -> nn.Module:
    """Of stages of equal blocks, all but the first block: it has other channels, and stays."""
    for stage, last in (("blocks.2", 2), ("blocks.3", 3), ("blocks.4", 2), ("blocks.5", 2)):
        for conv, reduction in (("conv_pw", 4), ("conv_pwl", 24)):  # of a projection's channels: six times the block's
            kids = [f"{stage}.{block}.{conv}" for block in range(1, last)]
            _share(model, f"{stage}.{last}.{conv}", kids, Se(reduction=reduction, norm=True))
    return model


def _share(model: nn.Module, parent: str, kids: Iterable[str], gate: Routing) -> None:
    """Let the kids use the parent's kernel, each with scales and a gate of its own, in place."""
    weight: Any = model.get_submodule(parent).weight
    members = (parent, *kids)
    derive(model, Family("kerneldna", members), {"P": weight}, [{}, *(_no_scales(weight) for _ in members[1:])])
    seed = int(torch.randint(2**31, (), device="cpu"))
    for kid in members[1:]:
        attach(model, [Layer(kid, "Conv2d", tuple(weight.shape))], gate, seed)


def _no_scales(weight: Tensor) -> dict[str, Tensor]:
    """f and s that leave the parent as it is."""
    scales = {"f": weight.new_zeros(len(weight)), "s": weight.new_zeros(weight.shape[2:])}
    return {letter: scale for letter, scale in scales.items() if letter == "f" or scale.numel() > 1}
