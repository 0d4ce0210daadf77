"""The loss of a fine-tune: the distance between the outputs of a net and of its teacher on the same view of an image.

The net's task says which distance; it needs no labels. For classes it is KL(teacher || model) at a temperature T, times
T^2 (Hinton et al. 2015, arXiv 1503.02531). Optional terms are the distance from labels, the distance between the
outputs of the nets' stages (Romero et al. 2015, arXiv 1412.6550; both nets have the same shapes, so no map between them
is needed), and the distance of the rows of shared tensors from orthogonality (Bansal et al. 2018, arXiv 1810.09102, do
so for all kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...inputs.finetune_settings import Settings
from ...network.blocks import Block
from ...network.derive import derived_layers
from ...network.inference import evaluating
from ...tasks import Outputs, captured, distillation, run
from .shared_regions import head_outputs, running_heads
from .student import Student


@dataclass(frozen=True)
class LossResult:
    """The loss, which can be differentiated, and the share of images or pixels on which model and teacher agree.

    The share is NaN for a task without answers.
    """

    loss: Tensor
    agreement: Tensor


def feature_error(features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """The mean over the stages of |f - f0|^2 / |f0|^2."""
    errors = [
        (features[name].float() - target.float()).square().sum() / target.float().square().sum().clamp_min(1e-30)
        for name, target in targets.items()
    ]
    return torch.stack(errors).mean()


def crowding(bases: Sequence[Tensor]) -> Tensor:
    """The mean over the tensors of |G - I|^2 / r, G the Gram matrix of a tensor's r rows, each at unit length.

    It is 0 for orthogonal rows. For r rows of d < r numbers the minimum is r / d - 1.
    """
    errors = []
    with torch.autocast(bases[0].device.type, enabled=False):
        for basis in bases:
            unit_rn = F.normalize(basis.flatten(1), dim=1)
            gap_rr = unit_rn @ unit_rn.T - torch.eye(len(unit_rn), dtype=unit_rn.dtype, device=unit_rn.device)
            errors.append(gap_rr.square().sum() / len(unit_rn))
    return torch.stack(errors).mean()


def trained_bases(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """The trainable shared tensors with two or more axes, each once."""
    bases = {id(basis): basis for derived in derived_layers(model).values() for basis in derived.shared.values()}
    return tuple(basis for basis in bases.values() if basis.ndim > 1 and basis.requires_grad)


@dataclass(frozen=True)
class Objective:
    """The loss as a function of the model (itself or its distributed form), inputs and labels.

    Attributes:
        student: The nets.
        stages: Modules whose outputs are matched with those of the original.
        bases: Tensors whose rows are to be orthogonal.
        settings: The weights of the terms.
        ends: Modules whose outputs are the inputs of `subnets`.
        subnets: Computes logits from these outputs (subnets.py).
    """

    student: Student
    stages: Sequence[str]
    bases: Sequence[Tensor]
    settings: Settings
    ends: Sequence[str] = ()
    subnets: nn.Module | None = None

    def __call__(self, call: Callable[[Tensor], object], inputs: Tensor, labels: Tensor | None) -> LossResult:
        student, settings = self.student, self.settings
        regions: dict[str, Any] = {}
        with (
            torch.no_grad(),
            captured(student.original, self.stages) as targets,
            running_heads(student.teacher, student.heads, regions) as heads,
        ):
            target = _float(run(student.task, student.teacher, inputs) + head_outputs(heads))
            if self.stages and student.teacher is not student.original:
                student.original(inputs)
        with (
            captured(student.model, {*self.stages, *self.ends}) as features,
            running_heads(student.model, student.heads, regions) as heads,
        ):
            output = _float(run(student.task, student.model, inputs, call) + head_outputs(heads))
        loss = student.task.loss(output, target, settings.temperature)
        if settings.label_weight and labels is not None:
            loss = loss + settings.label_weight * student.task.label_loss(output, labels)
        if self.stages:
            loss = loss + settings.feature_weight * feature_error(features, targets)
        if self.bases:
            loss = loss + settings.orthogonality * crowding(self.bases)
        if self.subnets is not None:
            early = self.subnets(*(features[name] for name in self.ends))
            errors = [distillation(logits.float(), target[0], settings.temperature) for logits in early]
            loss = loss + settings.subnets * torch.stack(errors).mean()
        return LossResult(loss, student.task.agreement(output, target).to(loss.device))


def stage_ends(model: nn.Module, blocks: Sequence[Block], example: Tensor) -> tuple[str, ...]:
    """The last block of every sequence of blocks whose outputs have the same shape."""
    names = [block.name for block in blocks if block.whole]
    with evaluating(model), captured(model, names) as outputs:
        model(example)
    shapes = [outputs[name].shape for name in names]
    return tuple(name for place, name in enumerate(names) if shapes[place] not in shapes[place + 1 : place + 2])


def _float(outputs: Outputs) -> Outputs:
    return tuple(each.float() for each in outputs)
