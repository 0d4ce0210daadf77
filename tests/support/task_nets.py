"""Tiny nets whose outputs belong to each task, and functions for --outputs and --metric, named as task_nets.py:NAME."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from support import tiny
from torch import Tensor, nn


class Trunk(tiny.Net):
    """Features (images, 12, 8, 8)."""

    def features(self, x: Tensor) -> Tensor:
        own: Tensor = self.blocks(self.stem(x))
        return own


class Upscaler(Trunk):
    """Images of twice the size in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.interpolate(self.features(x), scale_factor=4.0)).sigmoid()


class Segmenter(Trunk):
    """Logits of six classes for every pixel, as torchvision returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(12, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"out": F.interpolate(self.last(self.features(x)), scale_factor=2.0)}


class Speller(Trunk):
    """Logits (images, classes, positions)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean(2)


class Heads(Trunk):
    """Two tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        own = self.features(x).mean((2, 3))
        return self.fc(own), own


class Decider(Trunk):
    """Five sigmoids."""


class Detector(nn.Module):
    """A box for every strong position, as torchvision returns it; `backbone` has the features."""

    def __init__(self) -> None:
        super().__init__()
        trunk = Trunk()
        self.backbone, self.pretrained_cfg = nn.Sequential(trunk.stem, trunk.blocks), trunk.pretrained_cfg

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        scores = self.backbone(x)[:, :2].sigmoid()
        return [_boxes(own) for own in scores]


def _boxes(score_chw: Tensor) -> dict[str, Tensor]:
    """The six strongest positions as boxes of four pixels."""
    best = score_chw.flatten().topk(6)
    channel, row, column = (part for part in torch.unravel_index(best.indices, score_chw.shape))
    corner = 2.0 * torch.stack([column, row], 1)
    return {"boxes": torch.cat([corner, corner + 4], 1), "scores": best.values, "labels": channel + 1}


NETS = {
    "image": Upscaler,
    "segment": Segmenter,
    "sequence": Speller,
    "raw": Heads,
    "binary": Decider,
    "detect": Detector,
}


def net(task: str, seed: int = 0) -> nn.Module:
    """A net of this task whose normalizations have statistics of their own."""
    torch.manual_seed(seed)
    own: nn.Module = NETS[task]()
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return own.eval()


def speller() -> nn.Module:
    return net("sequence")


def upscaler() -> nn.Module:
    return net("image")


def first(returned: Any) -> Tensor:
    own: Tensor = returned[0]
    return own


def second(returned: Any) -> Tensor:
    own: Tensor = returned[1]
    return own


def broken(returned: Any) -> Tensor:
    raise KeyError("nothing")


def mean_output(net: nn.Module, batches: Iterable[Any]) -> float:
    """A metric: 100 less the mean absolute output."""
    return 100 - float(torch.stack([net(inputs).abs().mean() for inputs, _ in batches]).mean())


def undefined(net: nn.Module, batches: Iterable[Any]) -> float:
    return float("nan")


def raising(net: nn.Module, batches: Iterable[Any]) -> float:
    raise RuntimeError("no labels")
