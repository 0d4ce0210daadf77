"""What is compared of torchvision's detectors: scores as they compute them, and boxes where there is an object."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, RetinaNet, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large as ssdlite
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from kdna_convert.tasks import TASKS, captured, run

DETECT = TASKS["detect"]


def pyramid() -> BackboneWithFPN:
    return BackboneWithFPN(resnet18(), {"layer3": "0", "layer4": "1"}, [256, 512], 64)


def fcos() -> nn.Module:
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    return FCOS(pyramid(), 4, min_size=64, max_size=64, anchor_generator=anchors, score_thresh=0.0)


def retinanet() -> nn.Module:
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    return RetinaNet(pyramid(), 4, min_size=64, max_size=64, anchor_generator=anchors, score_thresh=0.0)


def ssd() -> nn.Module:
    return ssdlite(weights=None, weights_backbone=None, num_classes=4, score_thresh=0.0)


def compared(net: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad(), captured(net, DETECT.taps(net)) as values:
        net(images)
        return [*DETECT.tapped(net, values)]


@pytest.mark.parametrize("build", [fcos, retinanet, ssd])
def test_the_scores_that_are_compared_are_those_that_the_detector_returns(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net, image = build().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (returned,) = net(image)
    scores, boxes = compared(net, image)
    assert float(returned["scores"].max()) == pytest.approx(float(scores.max()), rel=1e-5)
    assert boxes.shape[:2] == scores.shape[:2]


def test_a_lost_object_counts_more_than_a_small_change_of_the_whole_background() -> None:
    net, anchors = fcos(), 100
    logits = torch.full((1, anchors, 4), -6.0)
    logits[0, 0, 1] = 3.0  # one object
    boxes, certain = torch.ones(1, anchors, 4), torch.full((1, anchors, 1), 4.0)

    def error(logits: Tensor, boxes: Tensor) -> float:
        heads = [
            {"cls_logits": own, "bbox_regression": places, "bbox_ctrness": certain}
            for own, places in ((logits, boxes), (original, ones))
        ]
        own, target = (tuple(DETECT.tapped(net, {"head": head})) for head in heads)
        none = torch.full((1, 1, 6), -1.0)
        return DETECT.divergence(DETECT.compare((none, *own), (none, *target))).distance

    original, ones = logits, boxes
    lost, moved, elsewhere, far = logits.clone(), boxes.clone(), logits.clone(), boxes.clone()
    lost[0, 0, 1] = 0.0
    moved[0, 0] = 2.0
    elsewhere[0, 1:] = -6.3
    far[0, 1:] = 2.0
    assert error(logits, boxes) == 0
    assert (lost - logits).square().sum() < (elsewhere - logits).square().sum()
    assert error(lost, boxes) > 2 * error(elsewhere, boxes)
    assert error(logits, moved) > 2 * error(logits, far)


def test_regions_of_an_rcnn_count_by_their_score_and_its_backbone_whole() -> None:
    net = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=4).eval()
    levels = len(net.backbone(torch.zeros(1, 3, 64, 64)))
    tensors = compared(net, torch.rand(1, 3, 64, 64))
    assert len(tensors) == levels + 2
    scores, regions = tensors[-2:]
    assert ((scores > 0) & (scores < 1)).all()
    assert regions.shape[1] == 4 * scores.shape[1]


def test_the_loss_of_a_detector_has_gradients() -> None:
    net = fcos().eval()
    outputs = run(DETECT, net, torch.rand(2, 3, 64, 64))
    targets = tuple(each.detach() * 1.1 for each in outputs)
    DETECT.loss(outputs, targets, 1.0).backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if "head" in name and "weight" in name)
