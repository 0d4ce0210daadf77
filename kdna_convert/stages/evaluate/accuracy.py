"""Evaluate a net: its accuracy on labeled images, and its divergence from the original on any images.

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

from ...core.errors import DataError, KdnaError, ModelError, NumericsError, cause
from ...core.measurements import Divergence, Evaluation
from ...core.processes import gather, raise_together, share
from ...core.specs import Progress
from ...network.inference import device_of, evaluating
from ...network.totals import totals

# Images (B, channels, ...), with or without labels (B,).
Batch = Tensor | tuple[Tensor, Tensor | None]

# The most positions of an image that are compared for a dense output (segmentation), evenly spaced.
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
    """Evaluate a net in one pass over the batches. In processes.sharing each process runs its share of them.

    Args:
        model: The net.
        batches: Images, with or without labels.
        original: The net to compare with, or its logits on the same images.
        require_labels: Whether images without labels are an error.
        metadata: The metadata of the model's file, for exact `bytes`.
        device: Where the nets are moved, in place; None: where they are.
        progress: Called before each batch.

    Raises:
        DataError: KD401 without images, KD402 for a label beyond the outputs, KD403 if labels are required and missing.
        ModelError: KD308 if the net returns no logits.
        NumericsError: KD702 for logits that are not finite.
    """
    teacher = original if isinstance(original, nn.Module) else None
    nets = [net.to(device) if device is not None else net for net in (model, teacher) if net is not None]
    rows, labels, example = _run(nets, batches, "evaluate", progress)
    if require_labels and labels is None:
        raise DataError("KD403", "these images have no labels, and accuracy needs them; give folders named by class")
    target = rows[1] if teacher is not None else original
    distance = divergence(rows[0], target) if isinstance(target, Tensor) else None
    top1, top5 = (None, None) if labels is None or rows[0].shape[1] == 1 else accuracy(rows[0], labels)
    cost = totals(model, example, metadata)
    return Evaluation(
        top1=top1,
        top5=top5,
        images=len(rows[0]),
        agreement=None if distance is None else distance.agreement,
        kl=None if distance is None else distance.kl,
        params=cost.params,
        bytes=cost.bytes,
        macs=cost.macs,
        logit_error=None if distance is None else distance.logit_error,
    )


def logits(model: nn.Module, batches: Iterable[Batch], progress: Progress | None = None) -> Tensor:
    """A net's logits on the CPU, float32, shaped as by `first_output`.

    They are computed in eval mode without gradients; the model keeps its modes. Raises as `evaluate` does.
    """
    return _run([model], batches, "logits", progress)[0][0]


def divergence(model_logits: Tensor, original_logits: Tensor) -> Divergence:
    """The divergence of the first logits from the second, both (images, classes, ...), computed in float64."""
    if model_logits.shape != original_logits.shape:
        shapes = f"{tuple(model_logits.shape)} and {tuple(original_logits.shape)}"
        raise ModelError("KD308", f"logits of shapes {shapes} cannot be compared; are they of the same images?")
    z, z0 = model_logits.double(), original_logits.double()
    energy = z0.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    error = float((z - z0).square().sum() / energy)
    if z.shape[1] == 1:  # a regression or one sigmoid: no class to agree on, and a softmax that is always 1
        return Divergence(None, None, error, len(z))
    log_p, log_p0 = F.log_softmax(z, dim=1), F.log_softmax(z0, dim=1)
    kl = (log_p0.exp() * (log_p0 - log_p)).sum(dim=1).mean().clamp(min=0)
    return Divergence(
        agreement=float((z.argmax(dim=1) == z0.argmax(dim=1)).double().mean()),
        kl=float(kl),
        logit_error=error,
        images=len(z),
    )


def divergence_from(original: nn.Module, inputs: Sequence[Tensor]) -> Callable[[nn.Module], Divergence]:
    """A function that measures nets on these batches of inputs. The original's logits are computed once, here."""
    z0 = logits(original, inputs)
    return lambda net: divergence(logits(net, inputs), z0)


def first_output(output: object, images: int) -> Tensor:
    """The first tensor that a net returns, as (images, classes) or (images, classes, positions). Differentiable.

    One number for every image is one output: (images, 1). At most 64 evenly spaced positions of a map are kept, and all
    positions of a sequence.

    Args:
        output: What the net returned: a tensor, or a mapping or sequence that begins with one.
        images: How many images it was given.

    Raises:
        ModelError: KD308 if the tensor has no row for every image.
    """
    if isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    elif isinstance(output, (tuple, list)):
        output = output[0] if output else None
    if isinstance(output, Tensor) and output.ndim == 1 and len(output) == images:
        return output[:, None]
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != images:
        raise ModelError("KD308", f"the net returns {type(output).__name__}, not a row of logits for every image")
    if output.ndim > 3:
        output = output.flatten(2)
        output = output[..., :: max(1, -(-output.shape[-1] // POSITIONS))]
    return output


def accuracy(logits_bc: Tensor, labels_b: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, 0..1; with fewer than five classes top-5 is 1. Raises DataError KD402."""
    classes = logits_bc.shape[1]
    if logits_bc.ndim != 2 or labels_b.ndim != 1:
        raise ModelError("KD308", "the net returns logits for every position; accuracy needs one row per image")
    if int(labels_b.min()) < 0 or int(labels_b.max()) >= classes:
        mismatch = f"labels {int(labels_b.min())}..{int(labels_b.max())}, and the net has {classes} outputs"
        raise DataError("KD402", f"the images have {mismatch}; map classes to outputs by --class-map")
    ranked = logits_bc.topk(min(5, classes), dim=1).indices == labels_b[:, None]
    return float(ranked[:, 0].double().mean()), float(ranked.any(dim=1).double().mean())


def _run(
    nets: Sequence[nn.Module], batches: Iterable[Batch], doing: str, progress: Progress | None
) -> tuple[list[Tensor], Tensor | None, Tensor]:
    """Every net's logits, the labels if every batch has them, and one input, in one pass over the batches."""
    by_number: dict[int, tuple[list[Tensor], Tensor | None]] = {}
    example = None
    with raise_together(), ExitStack() as stack:
        for net in nets:
            stack.enter_context(evaluating(net))
        for number, (images, label) in _counted(batches, doing, progress):
            example = images[:1] if example is None else example
            rows = [_rows(net, images.to(device_of(net))).float().cpu() for net in nets]
            by_number[number] = rows, label
    by_number = {number: own for part in gather(by_number) for number, own in part.items()}
    example = next((first for first in gather(example) if first is not None), None)
    if example is None:
        raise DataError("KD401", "there is no image to evaluate on")
    results = [by_number[number] for number in sorted(by_number)]
    labels = [label for _, label in results if label is not None]
    whole = [torch.cat(own) for own in zip(*(rows for rows, _ in results), strict=True)]
    for logits_bc in whole:
        if not logits_bc.isfinite().all():
            raise NumericsError("KD702", "the net's logits are not finite")
    return whole, torch.cat(labels).cpu() if len(labels) == len(results) else None, example


def _rows(net: nn.Module, images: Tensor) -> Tensor:
    """The net's first output, of one image at a time if it takes no batch. Raises ModelError KD307."""
    try:
        return first_output(net(images), len(images))
    except (KdnaError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the net is user code and may raise anything
        if len(images) == 1:
            shape, why = tuple(images.shape), cause(error)
            raise ModelError("KD307", f"the forward pass failed on an image of shape {shape}: {why}") from error
    return torch.cat([_rows(net, image) for image in images.split(1)])


def _counted(
    batches: Iterable[Batch], doing: str, progress: Progress | None
) -> Iterator[tuple[int, tuple[Tensor, Tensor | None]]]:
    """The batches of this process, with their numbers."""
    total = length_hint(batches, 0)
    for number, batch in share(batches):
        if progress:
            progress(doing, number, total)
        yield number, ((batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1]))
    if progress:
        progress(doing, total, total)
