"""Boxes with classes and scores for every image, as torchvision's detectors return them.

The boxes say how well a net detects. How far it is from the original is measured on the outputs of its heads, which are
differentiable and have the same shape for both nets: the scores, and the places times the scores. In logits the
background would count most, since almost all of them are of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import DataError, ModelError
from ..core.measurements import Divergence
from .logits import described_labels
from .raw import Raw
from .relative_error import errors, relative_error, relative_loss, sampled_values
from .structure import tensors_in, wrong_outputs
from .task import Head, Outputs, Statistics

# The most boxes of an image that are kept, those with the highest scores.
MOST = 300
# The score from which a box of the original counts as an object, where there are no labels.
CERTAIN = 0.3
# Where torchvision's detectors have the modules whose outputs are compared.
TAPS = ("backbone", "rpn.head", "head")
# Where an R-CNN has the modules that read the regions it proposes.
APART = ("roi_heads",)
# The head that reads the regions themselves. Those of masks and key points read the boxes that it returns.
HEADS = (Head("roi_heads", 1, "roi_heads.box_predictor"),)
# torchvision's classes of heads whose first class is the background; other heads have a sigmoid for each class.
SOFTMAX = ("SSDHead", "SSDLiteHead")
_UNKNOWN = f"the detector has no module {', '.join(TAPS)}"
_WAY_OUT = "compare its numbers with --task raw --outputs file.py:function"


@dataclass(frozen=True)
class Detect(Raw):
    """A list of {boxes, labels, scores} for a batch. Labels: boxes (images, most, 5) of x1, y1, x2, y2, class.

    Rows beyond an image's boxes are -1.
    """

    name: ClassVar[str] = "detect"
    points: ClassVar[tuple[str | None, str | None]] = ("map", "map")

    def taps(self, net: nn.Module) -> tuple[str, ...]:
        modules = dict(net.named_modules())
        return tuple(name for name in TAPS if name in modules)

    def tapped(self, net: nn.Module, values: Mapping[str, object]) -> Sequence[Tensor]:
        """Scores, and boxes by their score, so that the background hardly counts."""
        head, rpn = values.get("head"), values.get("rpn.head")
        if isinstance(head, Mapping) and {"cls_logits", "bbox_regression"} <= head.keys():
            return scored_boxes(head, background=type(net.get_submodule("head")).__name__ in SOFTMAX)
        if isinstance(rpn, Sequence) and len(rpn) == 2:
            return [*tensors_in(values.get("backbone")), *scored_regions(*rpn)]
        return tensors_in(values)

    def apart(self, net: nn.Module) -> tuple[str, ...]:
        return tuple(name for name in APART if name in dict(net.named_modules()))

    def heads(self, net: nn.Module) -> tuple[Head, ...]:
        modules = dict(net.named_modules())
        return tuple(head for head in HEADS if {head.module, head.output} <= modules.keys())

    def outputs(self, returned: object, images: int) -> Outputs:
        """The boxes (images, MOST, 6) of x1, y1, x2, y2, score, class."""
        if not is_detection(returned) or len(returned) != images:  # type: ignore[arg-type]
            raise wrong_outputs(self.name, "a list of dicts with boxes, labels and scores, one per image", returned)
        return (torch.stack([_packed(each) for each in returned]),)  # type: ignore[attr-defined]

    def loss(self, outputs: Outputs, targets: Outputs, temperature: float) -> Tensor:
        if not outputs[1:]:
            raise ModelError("KD308", f"{_UNKNOWN}, and has no outputs to train on; {_WAY_OUT}")
        return relative_loss(outputs[1:], targets[1:])

    def sampled(self, outputs: Outputs, generator: torch.Generator) -> Tensor | None:
        return sampled_values(outputs[1:], generator)

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        boxes = {"boxes": outputs[0].detach().double().cpu(), "boxes0": targets[0].detach().double().cpu()}
        return boxes | (errors(outputs[1:], targets[1:]) if outputs[1:] else {})

    def divergence(self, statistics: Statistics) -> Divergence:
        """The mean average precision is that of the net's boxes, the certain ones of the original as the truth.

        Without taps the relative error is 1 less the mean average precision.

        Raises:
            ModelError: KD308 if neither is defined.
        """
        truth = statistics["boxes0"]
        truth = torch.where(truth[..., 4:5] >= CERTAIN, truth, -1.0)[..., [0, 1, 2, 3, 5]]
        measured = mean_average_precision(statistics["boxes"], truth)
        if "error" in statistics:
            error = relative_error(statistics)
        elif "map" in measured:
            error = 1 - measured["map"]
        else:
            raise ModelError("KD308", f"{_UNKNOWN}, and the original is certain of no box; {_WAY_OUT}")
        return Divergence(None, None, error, len(truth), measured, self.name)

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        if labels.ndim != 3 or labels.shape[2] != 5 or len(labels) != len(outputs[0]):
            raise DataError(
                "KD402", f"detect needs boxes (images, most, 5) with classes as labels; got {described_labels(labels)}"
            )
        return {"boxes": outputs[0].detach().double().cpu(), "truth": _to_most(labels.double().cpu())}

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        return mean_average_precision(statistics["boxes"], statistics["truth"])


def scored_boxes(head: Mapping[str, Tensor], *, background: bool) -> list[Tensor]:
    """The scores (images, anchors, classes) of a one-stage detector, and each anchor's box times its best score."""
    logits, boxes = head["cls_logits"], head["bbox_regression"]
    scores = logits.softmax(-1)[..., 1:] if background else logits.sigmoid()
    if "bbox_ctrness" in head:
        scores = (scores * head["bbox_ctrness"].sigmoid()).sqrt()
    return [scores, boxes * scores.amax(-1, keepdim=True)]


def scored_regions(levels: Sequence[Tensor], deltas: Sequence[Tensor]) -> list[Tensor]:
    """The scores (images, anchors, height, width) of the regions of every level, and their boxes times them."""
    scores = [level.sigmoid() for level in levels]
    boxes = [
        (delta.unflatten(1, (score.shape[1], -1)) * score[:, :, None]).flatten(1)
        for delta, score in zip(deltas, scores, strict=True)
    ]
    return [torch.cat([each.flatten(1) for each in side], 1) for side in (scores, boxes)]


def is_detection(returned: object) -> bool:
    """Whether a net returned a list of dicts with boxes, labels and scores."""
    return (
        isinstance(returned, Sequence)
        and len(returned) > 0
        and all(isinstance(each, Mapping) and {"boxes", "labels", "scores"} <= each.keys() for each in returned)
    )


def mean_average_precision(boxes: Tensor, truth: Tensor) -> dict[str, float]:
    """COCO's mean average precision, over IoU .5 to .95 and at .5, of boxes (images, most, 6) and the true ones.

    It is computed by torchmetrics with faster-coco-eval. Without a true box it is undefined, and the result is empty.
    """
    from torchmetrics.detection import MeanAveragePrecision

    if (truth[..., -1] < 0).all():
        return {}
    meter: Any = MeanAveragePrecision(backend="faster_coco_eval")
    for own, other in zip(boxes, truth, strict=True):
        own, other = own[own[:, -1] >= 0], other[other[:, -1] >= 0]
        detected = {"boxes": own[:, :4], "scores": own[:, 4], "labels": own[:, 5].long()}
        meter.update([detected], [{"boxes": other[:, :4], "labels": other[:, 4].long()}])
    result = meter.compute()
    return {"map": float(result["map"]), "map50": float(result["map_50"])}


def _packed(detected: Mapping[str, Tensor]) -> Tensor:
    scores = detected["scores"].float()
    best = scores.argsort(descending=True)[:MOST]
    rows = torch.cat([detected["boxes"].float(), scores[:, None], detected["labels"].float()[:, None]], 1)
    return _to_most(rows[best])


def _to_most(rows: Tensor) -> Tensor:
    """Rows (..., boxes, values), filled with -1 to MOST boxes."""
    missing = rows.new_full((*rows.shape[:-2], max(0, MOST - rows.shape[-2]), rows.shape[-1]), -1.0)
    return torch.cat([rows[..., :MOST, :], missing], -2)
