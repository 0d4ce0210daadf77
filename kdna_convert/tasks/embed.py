"""One vector for every image, of which the direction counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from ..core.measurements import Divergence
from .raw import Raw
from .relative_error import errors, relative_error
from .task import Outputs, Statistics


@dataclass(frozen=True)
class Embed(Raw):
    """One vector for every image, of which the direction counts."""

    name: ClassVar[str] = "embed"

    def outputs(self, returned: object, images: int) -> Outputs:
        return tuple(each.reshape(images, -1) for each in super().outputs(returned, images)[:1])

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        own = errors(outputs, targets)
        cosine = F.cosine_similarity(outputs[0].double(), targets[0].double(), dim=1)
        return own | {"cosine": cosine.cpu()}

    def divergence(self, statistics: Statistics) -> Divergence:
        measured = {"cosine": float(statistics["cosine"].mean())}
        return Divergence(None, None, relative_error(statistics), len(statistics["error"]), measured, self.name)
