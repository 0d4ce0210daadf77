"""A converted model and what is known about it: what `convert` returns and a folder stores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from ...core.errors import FolderError
from ...core.filesize import file_size, metadata
from ...core.notebook import InNotebooks
from ...core.specs import DataConfig, Plan
from ..stored import stored_specs
from .config import describe
from .report import Report
from .trust import Permit


@dataclass(frozen=True)
class Origin:
    """How the original of a conversion is built again. Without a folder: by its name, which the caller gave.

    Attributes:
        folder: The folder that the conversion was read from.
        permit: What may be built for that folder.
        refusal: Why nothing may be built for it.
        module: A module that the caller passed as `model=`, which takes the place of the name.
    """

    folder: Path | None = None
    permit: Permit | None = None
    refusal: FolderError | None = None
    module: nn.Module | None = None


@dataclass
class Conversion(InNotebooks):
    """A converted model and what is known about it. The model still has its timm or torchvision class.

    The model's `pretrained_cfg` and `num_classes`, timm's attributes, are set to agree with `data` and its classifier.

    Attributes:
        model: The net, with derived layers.
        plan: Its families and routings, and its size.
        data: The input it takes.
        recipe: The recipe's YAML as given.
        report: How the conversion came about. `divergence` and `command` appear on the model card.
        coded: The coded file (../packed.py) that the tensors were decoded from, None for plain tensors.
        origin: How the original is built again.
    """

    model: nn.Module
    plan: Plan
    data: DataConfig
    recipe: str
    report: Report = field(default_factory=Report)
    coded: bytes | None = None
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        describe(self.model, self.data)


def uncoded(conversion: Conversion) -> Conversion:
    """The conversion with plain tensors, which may be changed, and the plan with the size of their file."""
    if conversion.coded is None:
        return conversion
    about = metadata(conversion.plan.model, conversion.recipe)
    planned = replace(conversion.plan.planned, bytes=file_size(stored_specs(conversion.model), about))
    report = replace(conversion.report, code=None)
    return replace(conversion, plan=replace(conversion.plan, planned=planned), report=report, coded=None)
