"""How far apart the boxes of two detectors are."""

from __future__ import annotations

import torch
from torch import Tensor

from ...tasks.detect import CERTAIN

# Boxes of one class are of one object from this intersection over union on, as in Pascal VOC.
SAME = 0.5


def certain_boxes(rows: Tensor) -> Tensor:
    """The rows of x1, y1, x2, y2, score and class that count as objects, those with the highest scores first."""
    certain = rows[rows[:, 4] >= CERTAIN]
    return certain[certain[:, 4].argsort(descending=True, stable=True)].cpu()


def boxes_apart(own: Tensor, other: Tensor) -> float:
    """The certain boxes that one net alone has, and for each pair 1 less the intersection over union.

    Args:
        own: Rows (boxes, 6) of x1, y1, x2, y2, score, class.
        other: Those of the other net.
    """
    own, other = certain_boxes(own), certain_boxes(other)
    overlaps = matched(own, other)
    return len(own) + len(other) - 2 * len(overlaps) + sum(1 - overlap for overlap in overlaps)


def matched(own: Tensor, other: Tensor) -> list[float]:
    """The intersection over union of the pairs of one class that overlap by SAME, by the scores of `own`."""
    if not len(own) or not len(other):
        return []
    overlap = torch.where(own[:, None, 5] == other[None, :, 5], intersection_over_union(own, other), -1.0)
    found = []
    for row in range(len(own)):
        best, column = overlap[row].max(0)
        if best >= SAME:
            found.append(float(best))
            overlap[:, column] = -1.0
    return found


def intersection_over_union(own: Tensor, other: Tensor) -> Tensor:
    """Of all pairs of boxes, (own, other)."""
    low = torch.maximum(own[:, None, :2], other[None, :, :2])
    high = torch.minimum(own[:, None, 2:4], other[None, :, 2:4])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(side[:, 2:4] - side[:, :2]).clamp(min=0).prod(1) for side in (own, other)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared).clamp(min=1e-9)
