"""Tiny nets whose outputs belong to each task, and functions for --outputs and --metric, named as task_nets.py:NAME."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from support import tiny
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign


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


class Regions(FasterRCNN):
    """torchvision's R-CNN with a small backbone: its box head reads the regions that it proposes."""

    def __init__(self) -> None:
        trunk = Trunk()
        backbone = nn.Sequential(trunk.stem, trunk.blocks)
        backbone.out_channels = 12  # type: ignore[assignment]
        head = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 9, 16), nn.ReLU())
        super().__init__(
            backbone,
            min_size=16,
            max_size=16,
            rpn_anchor_generator=AnchorGenerator(((4, 8),), ((0.5, 1.0),)),
            rpn_post_nms_top_n_test=6,
            rpn_score_thresh=0.4,
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
            box_head=head,
            box_predictor=FastRCNNPredictor(16, 3),
            box_detections_per_img=6,
        )
        self.pretrained_cfg = trunk.pretrained_cfg
        nn.init.normal_(self.rpn.head.cls_logits.weight, std=0.5)  # another number of regions in every image


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
    return _with_statistics(NETS[task]())


def regions() -> nn.Module:
    torch.manual_seed(0)
    return _with_statistics(Regions())


def _with_statistics(own: nn.Module) -> nn.Module:
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return own.eval()


def speller() -> nn.Module:
    return net("sequence")


def upscaler() -> nn.Module:
    return net("image")


def heads() -> nn.Module:
    return net("raw")


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
