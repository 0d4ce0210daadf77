"""A row of classes for every image, by CTC (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import DataError
from .classify import Classify
from .logits import described_labels, first_of
from .structure import wrong_outputs
from .task import Outputs, Statistics

# The blank of CTC, and what ends a row of labels.
BLANK, PADDING = 0, -1


@dataclass(frozen=True)
class SequenceTask(Classify):
    """A row of classes for every image by CTC: logits (images, classes, positions), class 0 the blank.

    Graves et al. 2006. Labels: rows of classes (images, length), padded at the end with -1.
    """

    name: ClassVar[str] = "sequence"
    points: ClassVar[tuple[str | None, str | None]] = ("sequences", "agreement")

    def outputs(self, returned: object, images: int) -> Outputs:
        z = first_of(returned, images)
        if z.ndim != 3 or z.shape[1] < 2:
            raise wrong_outputs(self.name, "logits (images, classes, positions)", returned)
        return (z,)

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        rows = [[decoded(row) for row in side[0].argmax(1)] for side in (outputs, targets)]
        same = [own == other for own, other in zip(*rows, strict=True)]
        return super().compare(outputs, targets) | {"same": torch.tensor(same, dtype=torch.float64)}

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        """Whether the whole row is right, and the edits that it takes to make it so."""
        self._require_rows(outputs[0], labels)
        rows = [decoded(row) for row in outputs[0].argmax(1)]
        wanted = [[label for label in row.tolist() if label != PADDING] for row in labels]
        edits = [_edits(own, right) for own, right in zip(rows, wanted, strict=True)]
        return {
            "sequences": torch.tensor([each == 0 for each in edits], dtype=torch.float64),
            "edits": torch.tensor(edits, dtype=torch.float64),
            "length": torch.tensor([len(each) for each in wanted], dtype=torch.float64),
        }

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The CTC loss. A row that is longer than its positions is ignored."""
        z = outputs[0]
        self._require_rows(z, labels)
        log_p_tbc = F.log_softmax(z, dim=1).permute(2, 0, 1)
        positions_b = torch.full((len(z),), z.shape[2], dtype=torch.long)
        return F.ctc_loss(log_p_tbc, labels.clamp_min(0), positions_b, (labels >= 0).sum(1), zero_infinity=True)

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        error = statistics["edits"].sum() / statistics["length"].sum().clamp(min=1)
        return {"sequences": float(statistics["sequences"].mean()), "token_error": float(error)}

    def _require_rows(self, z: Tensor, labels: Tensor) -> None:
        if labels.ndim != 2 or len(labels) != len(z) or labels.is_floating_point():
            raise DataError("KD402", f"sequence needs a row of labels for every image; got {described_labels(labels)}")
        if labels.numel() and not PADDING <= int(labels.min()) <= int(labels.max()) < z.shape[1]:
            found = f"{int(labels.min())}..{int(labels.max())}"
            raise DataError(
                "KD402", f"sequence has labels {found}, and the net {z.shape[1]} classes; -1 is the padding"
            )


def decoded(classes: Tensor) -> list[int]:
    """The best path of CTC: repeated classes once, without blanks."""
    return [label for label in torch.unique_consecutive(classes).tolist() if label != BLANK]


def _edits(own: Sequence[int], wanted: Sequence[int]) -> float:
    """The insertions, deletions and replacements from one row to the other."""
    from torchmetrics.functional.text import edit_distance

    rows = ["".join(chr(0x4E00 + label) for label in row) for row in (own, wanted)]  # one character a class
    return float(edit_distance([rows[0]], [rows[1]], reduction="none"))
