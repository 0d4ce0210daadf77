"""The loss of a fine-tune: the distance between the logits of a net and of its teacher on the same view of an image.

It is KL(teacher || model) at a temperature T, times T^2 (Hinton et al. 2015, arXiv 1503.02531), and needs no labels.
Optional terms are the cross-entropy of labels, the distance between the outputs of the nets' stages (Romero et al.
2015, arXiv 1412.6550; both nets have the same shapes, so no map between them is needed), and the distance of the rows
of shared tensors from orthogonality (Bansal et al. 2018, arXiv 1810.09102, do so for all kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ModelError
from ...inputs.finetune_settings import Settings
from ...network.blocks import Block
from ...network.derive import derived_layers
from ...network.inference import evaluating
from ..evaluate.accuracy import first_output
from .student import Student


@dataclass(frozen=True)
class LossResult:
    """The loss, which can be differentiated, and the share of images on which model and teacher agree (top-1).

    The share is NaN for one output, which has no classes.
    """

    loss: Tensor
    agreement: Tensor


def distillation(output: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(target || output) at temperature T of logits (B, classes, ...): the mean over all axes but the classes.

    For one output, whose KL is always 0, the squared error relative to the target's energy.
    """
    if output.shape[1] == 1:
        return (output - target).square().sum() / target.square().sum().clamp_min(1e-30)
    log_p = F.log_softmax(output / temperature, dim=1)
    log_p0 = F.log_softmax(target / temperature, dim=1)
    return (log_p0.exp() * (log_p0 - log_p)).sum(dim=1).mean() * temperature**2


def label_error(output: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of logits (B, classes) and labels (B,), or the CTC loss of sequences.

    CTC (Graves et al. 2006) is for logits (B, classes, positions) and labels (B, length), padded at the end with -1.
    The blank is class 0. A sequence that is longer than its positions is ignored.

    Raises:
        ModelError: KD308 if the shapes do not match.
    """
    if output.ndim != labels.ndim + 1:
        shapes = f"logits {tuple(output.shape)} do not match labels {tuple(labels.shape)}"
        needed = "one label per image, or one sequence of labels for logits with positions"
        raise ModelError("KD308", f"label_weight: {shapes}; it needs {needed}. Leave it out")
    if labels.ndim == 1:
        return F.cross_entropy(output, labels)
    log_p_tbc = F.log_softmax(output, dim=1).permute(2, 0, 1)
    positions_b = torch.full((len(output),), output.shape[2], dtype=torch.long)
    return F.ctc_loss(log_p_tbc, labels.clamp_min(0), positions_b, (labels >= 0).sum(1), zero_infinity=True)


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

    def __call__(self, run: Callable[[Tensor], object], inputs: Tensor, labels: Tensor | None) -> LossResult:
        with torch.no_grad(), captured(self.student.original, self.stages) as targets:
            target = first_output(self.student.teacher(inputs), len(inputs)).float()
            if self.stages and self.student.teacher is not self.student.original:
                self.student.original(inputs)
        with captured(self.student.model, {*self.stages, *self.ends}) as outputs:
            output = first_output(run(inputs), len(inputs)).float()
        loss = distillation(output, target, self.settings.temperature)
        if self.settings.label_weight and labels is not None:
            loss = loss + self.settings.label_weight * label_error(output, labels)
        if self.stages:
            loss = loss + self.settings.feature_weight * feature_error(outputs, targets)
        if self.bases:
            loss = loss + self.settings.orthogonality * crowding(self.bases)
        if self.subnets is not None:
            early = self.subnets(*(outputs[name] for name in self.ends))
            errors = [distillation(logits.float(), target, self.settings.temperature) for logits in early]
            loss = loss + self.settings.subnets * torch.stack(errors).mean()
        same = (output.detach().argmax(1) == target.argmax(1)).float().mean()
        return LossResult(loss, same if output.shape[1] > 1 else torch.full_like(same, torch.nan))


@contextmanager
def captured(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of these modules in the last run of the model inside the context."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            outputs[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def stage_ends(model: nn.Module, blocks: Sequence[Block], example: Tensor) -> tuple[str, ...]:
    """The last block of every sequence of blocks whose outputs have the same shape."""
    names = [block.name for block in blocks if block.whole]
    with evaluating(model), captured(model, names) as outputs:
        model(example)
    shapes = [outputs[name].shape for name in names]
    return tuple(name for place, name in enumerate(names) if shapes[place] not in shapes[place + 1 : place + 2])
