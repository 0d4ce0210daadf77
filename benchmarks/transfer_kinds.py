"""What the tasks of benchmarks/transfer.py ask of a net: a class for an image, or for every pixel.

A kind has the head, the measure, and how labels follow an image that is moved. The loss of both is the cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdna_convert.tasks import TASKS, Task

Moved = Callable[[Tensor], Tensor]  # maps of an image each, (count, channels, height, width), to those moved
STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Kind:
    """What a task asks of a net.

    Attributes:
        task: kdna's task, which has the loss and the measures.
        measure: The measure of a row, one of MEASURES.
        classes: So many.
        with_head: A pretrained ResNet-18, which may be changed, and a number of classes to the net with a new head of
            zeros and that head.
        follow: Labels of images that are moved by a function, to those of the moved images.
    """

    task: Task
    measure: str
    classes: int
    with_head: Callable[[nn.Module, int], tuple[nn.Module, nn.Module]]
    follow: Callable[[Tensor, Moved], Tensor]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.task.label_loss((logits,), labels)

    def percent(self, logits: Tensor, labels: Tensor) -> float:
        """The measure in %."""
        return 100 * self.task.scores(self.task.score((logits,), labels))[self.measure]


class PerPixel(nn.Module):
    """A ResNet with a linear head for every pixel: images (B, 3, H, W) to logits (B, classes, H, W).

    The head has a 1x1 convolution of zeros for the output of each of layer1 to layer4. Its four answers are enlarged
    bilinearly to the size of the first and added, then enlarged to the image. `body.fc` is gone.
    """

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        resnet: Any = body
        self.body = resnet
        widths = [resnet.get_submodule(stage)[-1].bn2.num_features for stage in STAGES]
        self.head = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        del resnet.fc

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
        answers = []
        for stage, convolution in zip(STAGES, self.head, strict=True):
            x = body.get_submodule(stage)(x)
            answers.append(convolution(x))
        return _enlarged(sum(_enlarged(each, answers[0].shape[2:]) for each in answers), size)


def _enlarged(x: Any, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _per_image(net: nn.Module, classes: int) -> tuple[nn.Module, nn.Module]:
    new: Any = net
    new.fc = nn.Linear(new.fc.in_features, classes)
    nn.init.zeros_(new.fc.weight)
    nn.init.zeros_(new.fc.bias)
    return net, new.fc


def _per_pixel(net: nn.Module, classes: int) -> tuple[nn.Module, nn.Module]:
    new = PerPixel(net, classes)
    return new, new.head


def _with_image(masks: Tensor, moved: Moved) -> Tensor:
    return moved(masks[:, None].float())[:, 0].long()


# The measures of the rows, and what a table calls them.
MEASURES = {"top1": "top-1, %", "miou": "mIoU, %"}
OF_IMAGES = Kind(TASKS["classify"], "top1", 10, _per_image, lambda labels, _: labels)
OF_PIXELS = Kind(TASKS["segment"], "miou", 5, _per_pixel, _with_image)
