"""Calibration: the moments of all layers from one pass over unlabeled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import length_hint
from typing import Literal

import torch
from torch import Tensor, nn

from ...core.errors import DataError, KdnaError, ModelError, NumericsError, cause
from ...core.processes import count, gather, raise_together, share
from ...core.specs import Layer, Progress
from ...network.patches import watch
from ...tasks import CLASSIFY, Outputs, Task, run
from .moments import Moments, plan_memory
from .tally import EXAMPLES, Tally, TallyForm

# The most output positions drawn per image. Neighbors are alike: for six layers of a CIFAR ResNet-56 (1,000 images of
# 1,024 positions) the error was less than 0.5 % above that of 128 positions, with a sixteenth of all patches.
POSITIONS = 64
# Patches drawn for each number that a patch has, from all images together (benchmarks/sampling.py).
PATCHES = 16
# Images whose gradients are averaged to the squares.
BACKWARD = 128
# Bytes that the autograd graph may take, about; larger batches go through the net in parts. The graph takes about twice
# the outputs of the layers: those, and what a normalization and an activation make of them. Parts of a few images are
# the fastest too: they stay in the cache.
GRAPH, _GRAPH_PER_OUTPUT = 2**27, 2
# Layers whose inputs cannot be read as patches.
_UNUSABLE = frozenset({"KD104", "KD107", "KD111", "KD112", "KD120"})
# The most outputs of a layer whose gradients are kept for all pairs of channels: 64 MiB.
LONGEST = 4096

# A layer's name, and forward or backward.
Call = tuple[str, str]
# What is kept of the loss's gradient g at a layer's output: nothing, the squares, or g g^T.
Gradients = Literal["none", "squares", "pairs"]


@dataclass(frozen=True)
class Sampling:
    """What is drawn with `seed`: the labels, and output positions of every image.

    Attributes:
        positions: The most positions per image; None: all of them.
        patches: Of a layer whose patches have n numbers, about `patches` n are drawn from all images together, at least
            one of each.
        images: How many images there are; None: unknown, and `positions` are drawn of each.
        seed: The seed.
    """

    positions: int | None = POSITIONS
    patches: int = PATCHES
    images: int | None = None
    seed: int = 0

    def per_image(self, patch: int) -> int | None:
        """How many positions are drawn per image for patches of this length; None: all."""
        if self.positions is None or not self.images:
            return self.positions
        return min(self.positions, -(-self.patches * patch // self.images))


_SAMPLING = Sampling()


def collect(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Iterable[Tensor],
    *,
    memory: int = 4 * 2**30,
    gradients: Gradients = "squares",
    sampling: Sampling = _SAMPLING,
    task: Task | None = CLASSIFY,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    notes: list[str] | None = None,
) -> Moments:
    """Collect the moments of a net's layers in one pass over unlabeled inputs.

    The loss is one whose squared gradients are the curvature of the task's (Task.sampled); for classes, the
    cross-entropy with labels of the net's own softmax. A net without a backward pass has gradients of 0. The squares
    are averages over the first BACKWARD images. Large batches go through the net in parts. The device, modes and
    weights of the model are restored. In processes.sharing each process runs its share of the batches, and all get the
    same result: what is drawn depends on the seed and the batch number.

    Args:
        model: The original net.
        layers: Its surveyed layers.
        batches: Inputs (images, ...).
        memory: Bound on the bytes of all moments and of the work on them; see `plan_memory`. Layers that do not fit,
            and layers that the forward pass does not reach, are missing from the result.
        gradients: "none" skips the backward pass. "pairs" keeps g g^T for layers without groups and with at most
            LONGEST outputs, within `memory`.
        sampling: What is drawn at random.
        task: What the outputs mean; None: unknown, and the gradients are 0.
        device: Where the net runs; None: where it is.
        progress: Called after each batch.
        notes: Gets a note if the device runs out of memory. The images at once are then halved.

    Raises:
        DataError: KD405 if there is no image.
        NumericsError: KD701 for a weight, KD702 for an input of a layer that is not finite; it names the layer.
        ModelError: KD307 if the forward pass fails.
    """
    _require_finite_parameters(model)
    forms = _tally_forms(layers, memory, gradients)
    modules = {name: model.get_submodule(name) for name in forms}
    expected = length_hint(batches, 0)
    with _frozen(model, device) as place:
        run = _Pass(forms, sampling, place, gradients, images_at_once(layers), task)
        with raise_together(), watch(model, modules, run.observe), torch.no_grad():
            for number, batch in share(batches):
                run.batch(model, number, batch)
                if progress is not None:
                    progress("calibrate", number + 1, max(expected, number + 1))
            _require_finite(run.tallies)
            if not all(tally.gradient.isfinite().all() for tally in run.tallies.values()):
                run.forget_gradients()
        if count() > 1:
            run.merge()
        if run.halved and notes is not None:
            notes.append(f"{place} was out of memory: calibrated {run.at_once} images at a time")
        return run.finish()


def images_at_once(layers: Sequence[Layer]) -> int:
    """How many images go forward and back through these layers in about GRAPH bytes; at least one."""
    outputs = sum(4 * layer.out_positions * layer.out_channels for layer in layers)
    return max(1, GRAPH // max(1, _GRAPH_PER_OUTPUT * outputs))


def _tally_forms(layers: Sequence[Layer], memory: int, gradients: Gradients) -> dict[str, TallyForm]:
    """What is summed, by layer, within `memory` bytes."""
    usable = [layer for layer in layers if layer.reason not in _UNUSABLE]
    pairs = {
        layer.name for layer in usable if gradients == "pairs" and layer.groups == 1 and layer.out_channels <= LONGEST
    }
    forms = plan_memory(usable, memory - sum(4 * layer.out_channels**2 for layer in usable if layer.name in pairs))
    return {
        layer.name: TallyForm(layer, forms[layer.name], layer.name in pairs) for layer in layers if layer.name in forms
    }


class _Pass:
    """The pass over the batches: `tallies` in the order of execution, and the `sizes` of the batches by number."""

    def __init__(
        self,
        forms: Mapping[str, TallyForm],
        sampling: Sampling,
        device: torch.device,
        gradients: Gradients,
        at_once: int,
        task: Task | None,
    ) -> None:
        self.forms, self.sampling, self.device = forms, sampling, device
        self.at_once, self.halved, self.task = at_once, False, task
        self.backward = gradients != "none"
        self.most = BACKWARD if gradients == "squares" else None  # images with a backward pass
        self.tallies: dict[str, Tally] = {}
        self.sizes: dict[int, int] = {}
        self.backward_images = 0
        self._generator = torch.Generator()
        self._part, self._images = (0, 0), 0  # (number of the batch, first image in it), and how many images
        self._calls: Counter[Call] = Counter()
        self._done: Counter[Call] = Counter()

    def batch(self, model: nn.Module, number: int, batch: Tensor) -> None:
        """Run one batch, at most `at_once` images at a time."""
        self._seed(number)
        first = len(batch) if self.most is None else self.most - number * len(batch)
        begin = 0
        while begin < len(batch):
            part = batch[begin : begin + self.at_once]
            self._run(model, (number, begin), part, self.backward and begin < first, Counter())
            begin += len(part)
        self.sizes[number] = len(batch)

    def _seed(self, number: int) -> None:
        self._generator.manual_seed((self.sampling.seed + 7919 * number) % 2**32)

    def _run(self, model: nn.Module, place: tuple[int, int], part: Tensor, backward: bool, done: Counter[Call]) -> None:
        """Run a part of a batch; if the device has too little memory, in halves that repeat no call that is `done`."""
        self._part, self._images, self._calls, self._done = place, len(part), Counter(), done
        try:
            outputs = self._forward(model, part, backward)
            if backward and self.backward:
                self._measure_gradients(outputs)
                self.backward_images += len(part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
        else:
            return
        self.halved, self.at_once = True, min(self.at_once, len(part) // 2)
        done, (number, begin) = done | self._calls, place
        for smaller in part.split(self.at_once):
            self._run(model, (number, begin), smaller, backward, done)
            begin += len(smaller)

    def observe(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
        """The hook on every layer."""
        if name not in self.tallies:
            self.tallies[name] = Tally(self.forms[name], self.device)
        tally = self.tallies[name]
        with self._once(name, "forward") as new:
            if new:
                positions = self.sampling.per_image(tally.layer.patch)
                tally.add(module, x.detach(), y.detach(), positions, self._generator)
                if len(y) == self._images:  # otherwise the batch axis holds windows or tokens
                    tally.keep(module, y.detach(), self._part, sum(self.sizes.values()) + self._part[1])
        return tally.listen(module, y, partial(self._once, name, "backward")) if self.backward else None

    @contextmanager
    def _once(self, name: str, direction: str) -> Iterator[bool]:
        """Whether this call of a layer is new. Otherwise it was counted before the device ran out of memory."""
        call = name, direction
        yield self._calls[call] >= self._done[call]
        self._calls[call] += 1

    def _forward(self, model: nn.Module, part: Tensor, backward: bool) -> Outputs:
        """The outputs that the task compares, none without a backward pass.

        A net that runs without gradients only, as the first images show, is calibrated without them.
        """
        try:
            with torch.set_grad_enabled(backward):
                if backward and self.task is not None:
                    return self._outputs(self.task, model, part.to(self.device))
                model(part.to(self.device))
                return ()
        except (KdnaError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the net is user code and may raise anything
            if not backward or self._part[1] or self.sizes:
                shape, why = tuple(part.shape), cause(error)
                raise ModelError("KD307", f"the forward pass failed on images of shape {shape}: {why}") from error
        self.backward = False
        self.tallies.clear()
        self._calls.clear()
        self._seed(self._part[0])
        return self._forward(model, part, backward=False)

    def _outputs(self, task: Task, model: nn.Module, part: Tensor) -> Outputs:
        """The outputs of the net; none where they are of another task, which gives no gradients."""
        try:
            return run(task, model, part)
        except ModelError as error:
            if error.code != "KD308":
                raise
            return ()

    def _measure_gradients(self, outputs: Outputs) -> None:
        """The backward pass. A net that has none keeps the moments, and all gradients become 0."""
        try:
            self._backward(outputs)
        except (KdnaError, torch.OutOfMemoryError):
            raise
        except Exception:  # noqa: BLE001 - the net's own backward may raise anything
            self.forget_gradients()

    def forget_gradients(self) -> None:
        """Collect moments alone from here on."""
        self.backward = False
        for tally in self.tallies.values():
            tally.gradient.zero_()

    def merge(self) -> None:
        """Add up the tallies of all processes, in each of them. A process without a batch has no tally of its own."""
        if not all(gather(self.backward)):
            self.forget_gradients()
        self.sizes = {number: size for own in gather(self.sizes) for number, size in own.items()}
        self.backward_images = sum(gather(self.backward_images))
        reached = {name for names in gather(list(self.tallies)) for name in names}
        starts = accumulate((size for _, size in sorted(self.sizes.items())), initial=0)
        first = {number for number, start in zip(sorted(self.sizes), starts, strict=False) if start < EXAMPLES}
        self.tallies = {
            name: self.tallies.get(name) or Tally(form, self.device)
            for name, form in self.forms.items()
            if name in reached
        }
        for tally in self.tallies.values():
            tally.merge(first)

    def finish(self) -> Moments:
        """The moments in the order of the layers. Each sum is dropped as soon as its average is made."""
        images = sum(self.sizes.values())
        if not images:
            raise DataError("KD405", "no calibration image was given; pass at least one")
        return {
            name: self.tallies.pop(name).finish(images, self.backward_images)
            for name in self.forms
            if name in self.tallies
        }

    def _backward(self, outputs: Outputs) -> None:
        """The backward pass of the loss that stands for the curvature."""
        if self.task is None or not outputs:
            return
        if not all(each.isfinite().all() for each in outputs):
            _require_finite(self.tallies)
            raise NumericsError("KD702", "the model's output is not finite, though every calibrated layer's input is")
        with torch.enable_grad():
            loss = self.task.sampled(outputs, self._generator)
            if loss is not None:
                loss.backward()


@contextmanager
def _frozen(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model on `device` with no parameter that requires a gradient; both are restored afterwards."""
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    home = parameters[0].device if parameters else torch.device("cpu")
    place = home if device is None else torch.device(device)
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        if place != home:
            model.to(place)
        yield place
    finally:
        if place != home:
            model.to(home)
        for parameter in trained:
            parameter.requires_grad_(True)


def _require_finite_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise NumericsError("KD701", f"{name}: the weight holds NaN or infinity")


def _require_finite(tallies: Mapping[str, Tally]) -> None:
    """Raise for the first layer in the order of execution whose inputs were not finite."""
    for name, tally in tallies.items():
        if not tally.is_finite:
            raise NumericsError("KD702", f"{name}: its inputs hold NaN or infinity on the calibration images")
