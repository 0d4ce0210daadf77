"""What a fine-tune lowers: the distance of a net's answers from its teacher's on the same view of the same images.

KL(original || model) at a temperature T, times T^2 (Hinton et al. 2015, arXiv 1503.02531); it needs no label. Where
wanted, also the labels' cross-entropy, the outputs of the net's stages (Romero et al. 2015, arXiv 1412.6550, there with
a learned map between them; the two nets here are of one shape and need none), and how far the rows of what is shared
are from being orthogonal (as Bansal et al. 2018, arXiv 1810.09102, ask of all kernels).
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
    """The loss (to be differentiated), and the share of the images with the teacher's answer."""

    loss: Tensor
    agreement: Tensor


def distillation(output: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(target || output) at temperature T, both (B, classes, ...): the mean over all but the classes."""
    log_p = F.log_softmax(output / temperature, dim=1)
    log_p0 = F.log_softmax(target / temperature, dim=1)
    return (log_p0.exp() * (log_p0 - log_p)).sum(dim=1).mean() * temperature**2


def label_error(output: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of (B, classes) answers and (B,) labels; of (B, classes, positions) answers and rows of labels
    (B, length), padded behind with -1, the connectionist temporal classification (Graves et al. 2006), whose blank is
    class 0: a row that is too long for its positions counts nothing. Raises ModelError KD308 where they do not match.
    """
    if output.ndim != labels.ndim + 1:
        shapes = f"answers {tuple(output.shape)} and labels {tuple(labels.shape)}"
        why = "a label is an image's, or a row of them where the net answers by position"
        raise ModelError("KD308", f"label_weight: {why}; these are {shapes}: leave it out")
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

    0 where they are orthogonal; r rows of d < r numbers cannot be, and come to r / d - 1 at best.
    """
    found = []
    with torch.autocast(bases[0].device.type, enabled=False):
        for basis in bases:
            unit_rn = F.normalize(basis.flatten(1), dim=1)
            gap_rr = unit_rn @ unit_rn.T - torch.eye(len(unit_rn), dtype=unit_rn.dtype, device=unit_rn.device)
            found.append(gap_rr.square().sum() / len(unit_rn))
    return torch.stack(found).mean()


def trained_bases(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """The families' shared tensors of two axes or more that may change, each once."""
    found = {id(basis): basis for derived in derived_layers(model).values() for basis in derived.shared.values()}
    return tuple(basis for basis in found.values() if basis.ndim > 1 and basis.requires_grad)


@dataclass(frozen=True)
class Objective:
    """Call it with what runs the model (the model itself, or its distributed form), inputs and labels."""

    student: Student
    stages: Sequence[str]  # modules whose outputs are matched with the original's
    bases: Sequence[Tensor]  # tensors whose rows are drawn to orthogonality
    settings: Settings
    ends: Sequence[str] = ()  # where sub-networks end, and
    subnets: nn.Module | None = None  # what answers by these modules' outputs

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
            errors = [distillation(answer.float(), target, self.settings.temperature) for answer in early]
            loss = loss + self.settings.subnets * torch.stack(errors).mean()
        return LossResult(loss, (output.detach().argmax(1) == target.argmax(1)).float().mean())


@contextmanager
def captured(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of these modules, filled in by the model's runs while the context lasts."""
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
    """The last block of every run of blocks whose outputs have one shape."""
    names = [block.name for block in blocks if block.whole]
    with evaluating(model), captured(model, names) as outputs:
        model(example)
    shapes = [outputs[name].shape for name in names]
    return tuple(name for place, name in enumerate(names) if shapes[place] not in shapes[place + 1 : place + 2])
