"""What a net is worth: its accuracy where the images have labels, and how far it is from the original where not.

z0 = logits(original, batches)           # once
divergence(logits(model, batches), z0)   # after each stage
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from operator import length_hint

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import DataError, ModelError, NumericsError
from ...core.processes import gather, raise_together, share
from ...core.specs import Divergence, Evaluation, Progress
from ...network.inference import device_of, evaluating
from ...network.totals import totals

# Images (B, channels, ...) with, perhaps, their labels (B,).
Batch = Tensor | tuple[Tensor, Tensor | None]

# Of a dense output, a segmentation say, so many positions of an image are compared, evenly spread.
POSITIONS = 64


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    original: nn.Module | Tensor | None = None,
    require_labels: bool = False,
    metadata: Mapping[str, str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run `model` over the batches, once, and beside it `original`: a net, or its logits on these very images.

    `metadata` is what the model's file says about itself, for `bytes` to be exact. With `device` the nets are moved
    there, in place. Inside processes.sharing each process runs its share of the batches, and all have the same result.
    Raises DataError KD401 (no image), KD402 (a label beyond the outputs), KD403 (labels required, but
    there are none); ModelError KD308 (no logits); NumericsError KD702 (logits that are not finite).
    """
    teacher = original if isinstance(original, nn.Module) else None
    nets = [net.to(device) if device is not None else net for net in (model, teacher) if net is not None]
    rows, labels, example = _run(nets, batches, "evaluate", progress)
    if require_labels and labels is None:
        raise DataError("KD403", "these images have no labels, and accuracy needs them; give folders named by class")
    target = rows[1] if teacher is not None else original
    seen = divergence(rows[0], target) if isinstance(target, Tensor) else None
    top1, top5 = (None, None) if labels is None else accuracy(rows[0], labels)
    cost = totals(model, example, metadata)
    return Evaluation(
        top1=top1,
        top5=top5,
        images=len(rows[0]),
        agreement=None if seen is None else seen.agreement,
        kl=None if seen is None else seen.kl,
        params=cost.params,
        bytes=cost.bytes,
        macs=cost.macs,
        logit_error=None if seen is None else seen.logit_error,
    )


def logits(model: nn.Module, batches: Iterable[Batch], progress: Progress | None = None) -> Tensor:
    """The net's answers on the CPU, float32: (images, classes), or by position, as `answers` has them.

    In eval mode and without gradients; the model is left as it was. Raises as evaluate does.
    """
    return _run([model], batches, "logits", progress)[0][0]


def divergence(model_logits: Tensor, original_logits: Tensor) -> Divergence:
    """How far the first are from the second, both (images, classes, ...): see specs.Divergence. Computed in float64."""
    if model_logits.shape != original_logits.shape:
        shapes = f"{tuple(model_logits.shape)} and {tuple(original_logits.shape)}"
        raise ModelError("KD308", f"logits of shapes {shapes} cannot be compared; are they of the same images?")
    z, z0 = model_logits.double(), original_logits.double()
    log_p, log_p0 = F.log_softmax(z, dim=1), F.log_softmax(z0, dim=1)
    kl = (log_p0.exp() * (log_p0 - log_p)).sum(dim=1).mean().clamp(min=0)
    energy = z0.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Divergence(
        agreement=float((z.argmax(dim=1) == z0.argmax(dim=1)).double().mean()),
        kl=float(kl),
        logit_error=float((z - z0).square().sum() / energy),
        images=len(z),
    )


def divergence_from(original: nn.Module, inputs: Sequence[Tensor]) -> Callable[[nn.Module], Divergence]:
    """What measures nets on these batches of inputs; the original's answers are worked out once, now."""
    z0 = logits(original, inputs)
    return lambda net: divergence(logits(net, inputs), z0)


def answers(output: object, images: int) -> Tensor:
    """The first tensor that a net returns for so many images: (images, classes) or (images, classes, positions).

    Of a map's positions an evenly spread few are kept, 64 at most; a sequence's all. Differentiable. Raises ModelError
    KD308.
    """
    if isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    elif isinstance(output, (tuple, list)):
        output = output[0] if output else None
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != images:
        raise ModelError("KD308", f"the net returns {type(output).__name__}, not a row of logits for every image")
    if output.ndim > 3:
        output = output.flatten(2)
        output = output[..., :: max(1, -(-output.shape[-1] // POSITIONS))]
    return output


def accuracy(logits_bc: Tensor, labels_b: Tensor) -> tuple[float, float]:
    """Top-1 and top-5, as shares; with fewer than five classes top-5 is 1. Raises DataError KD402."""
    classes = logits_bc.shape[1]
    if logits_bc.ndim != 2 or labels_b.ndim != 1:
        raise ModelError("KD308", "the net answers by position, not by image; accuracy needs one answer an image")
    if int(labels_b.min()) < 0 or int(labels_b.max()) >= classes:
        found = f"labels {int(labels_b.min())}..{int(labels_b.max())}, and the net has {classes} outputs"
        raise DataError("KD402", f"the images have {found}; --class-map says which output a class is")
    ranked = logits_bc.topk(min(5, classes), dim=1).indices == labels_b[:, None]
    return float(ranked[:, 0].double().mean()), float(ranked.any(dim=1).double().mean())


def _run(
    nets: Sequence[nn.Module], batches: Iterable[Batch], doing: str, progress: Progress | None
) -> tuple[list[Tensor], Tensor | None, Tensor]:
    """Every net's logits, the labels if every batch has them, and one input, in one pass over the batches."""
    found: dict[int, tuple[list[Tensor], Tensor | None]] = {}
    example = None
    with raise_together(), ExitStack() as stack:
        for net in nets:
            stack.enter_context(evaluating(net))
        for number, (images, label) in _counted(batches, doing, progress):
            example = images[:1] if example is None else example
            rows = [answers(net(images.to(device_of(net))), len(images)).float().cpu() for net in nets]
            found[number] = rows, label
    found = {number: own for part in gather(found) for number, own in part.items()}
    example = next((first for first in gather(example) if first is not None), None)
    if example is None:
        raise DataError("KD401", "there is no image to evaluate on")
    seen = [found[number] for number in sorted(found)]
    known = [label for _, label in seen if label is not None]
    whole = [torch.cat(own) for own in zip(*(rows for rows, _ in seen), strict=True)]
    for logits_bc in whole:
        if not logits_bc.isfinite().all():
            raise NumericsError("KD702", "the net's logits are not finite")
    return whole, torch.cat(known).cpu() if len(known) == len(seen) else None, example


def _counted(
    batches: Iterable[Batch], doing: str, progress: Progress | None
) -> Iterator[tuple[int, tuple[Tensor, Tensor | None]]]:
    """This process's batches, each with its number."""
    total = length_hint(batches, 0)
    for number, batch in share(batches):
        if progress:
            progress(doing, number, total)
        yield number, ((batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1]))
    if progress:
        progress(doing, total, total)
