"""List the layers of a net, their sizes, and whether each can be converted, from one forward pass.

A layer can be converted only if its patches times its kernel reproduce its output. A subclass with a forward of its own
does not pass (KD112).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from ...core.errors import ModelError, cause
from ...core.modes import eval_mode
from ...core.specs import Layer, Shape
from ...core.standardize import as_run, encode
from ...network.patches import output_positions, patches, watch
from ...network.standardizing import running_kernel, standardized_of
from .functional import watch_functions

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# The largest relative difference of patches times kernel from the layer's output: allows half precision and TF32.
_TOLERANCE = 0.03


def survey(model: nn.Module, example: Tensor, linear: bool = True) -> tuple[Layer, ...]:
    """List the convolutions and linear layers of a net in module order. The model keeps its weights and modes.

    Args:
        model: The net.
        example: A batch of inputs for one forward pass.
        linear: Whether linear layers are listed.

    Returns:
        The layers. `reason` is set if the structure alone forbids a conversion (KD103-KD107, KD111, KD112), and for
        convolutions outside of any layer (KD120). Positions are per image; those of a layer that runs several times
        add up.

    Raises:
        ModelError: KD307 if the forward pass fails.
    """
    modules = {name: module for name, module in model.named_modules() if _listed(module, linear)}
    uses: dict[str, _Use] = {name: _Use(reason=_unreadable(module)) for name, module in modules.items()}
    shared = _shared(model)

    def see(name: str, module: nn.Module, x: Any, y: Any) -> None:
        uses[name].add(x, y, channels_last=isinstance(module, nn.Linear))

    with watch(model, modules, see), watch_functions(model, modules) as functions:
        _run(model, example)
    rows = [_row(name, module, uses[name], len(example), shared) for name, module in modules.items()]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return tuple(sorted([*rows, *functions.rows(len(example))], key=lambda row: order.get(row.name, len(order))))


def takes_batches(model: nn.Module, examples: Tensor) -> bool:
    """Whether the net runs on these two images or more at once. It keeps its modes."""
    try:
        with eval_mode(model):
            _run(model, examples)
    except ModelError:
        return False
    return True


@dataclass
class _Use:
    """What the forward pass showed of one layer; `sample` is the input and output of one image."""

    calls: int = 0
    in_positions: int = 0
    out_positions: int = 0
    sample: tuple[Tensor, Tensor] | None = None
    reason: str | None = None

    def add(self, x: Any, y: Any, channels_last: bool) -> None:
        self.calls += 1
        if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.dim() < 2 or y.dim() < 2 or not len(x):
            self.reason = self.reason or "KD112"
            return
        self.in_positions += x.numel() // x.shape[-1 if channels_last else 1]
        self.out_positions += y.numel() // y.shape[-1 if channels_last else 1]
        if self.sample is None:
            self.sample = (x[:1].detach().clone(), y[:1].detach().clone())


def _listed(module: nn.Module, linear: bool) -> bool:
    if isinstance(module, (*_CONV, *_TRANSPOSED)) or (linear and isinstance(module, nn.Linear)):
        return True
    # torch.ao's quantized layers return packed weights from a method and share no class with the float layers.
    quantized = type(module).__module__.startswith("torch.ao.nn.") and callable(getattr(module, "weight", None))
    return quantized and (linear or "Linear" not in type(module).__name__)


def _unreadable(module: nn.Module) -> str | None:
    """KD111 for a weight that is no plain floating-point tensor. Called before the forward pass fills lazy ones."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or is_lazy(weight) or not weight.is_floating_point() or weight.is_quantized:
        return "KD111"
    return None if type(weight.data) is Tensor else "KD111"


def _run(model: nn.Module, example: Tensor) -> None:
    reference = next((p for p in model.parameters() if not is_lazy(p) and p.is_floating_point()), None)
    if reference is not None:
        example = example.to(reference.device, reference.dtype)
    try:
        with torch.no_grad():
            model(example)
    except Exception as error:
        message = f"forward pass failed on an input of shape {tuple(example.shape)}: {cause(error)}"
        raise ModelError("KD307", message) from error


def _shared(model: nn.Module) -> set[nn.Module]:
    """Modules with two names, or with a parameter whose memory another module holds too."""
    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    slots = [(m, p) for m in model.modules() for p in m._parameters.values() if p is not None and not is_lazy(p)]
    holders = Counter(_memory(parameter) for _, parameter in slots)
    return {m for m in model.modules() if names[id(m)] > 1} | {m for m, p in slots if holders[_memory(p)] > 1}


def _memory(parameter: Tensor) -> int:
    plain = type(parameter.data) is Tensor and parameter.numel() > 0
    return (parameter.data_ptr() if plain else 0) or id(parameter)


def _row(name: str, module: nn.Module, use: _Use, images: int, shared: set[nn.Module]) -> Layer:
    shape = _shape(module)
    linear = isinstance(module, nn.Linear) or len(shape) == 2
    groups = int(getattr(module, "groups", 1))
    return Layer(
        name=name,
        kind=_kind(module),
        shape=shape,
        groups=groups,
        stride=() if linear else tuple(module.stride),  # type: ignore[arg-type]
        dilation=() if linear else tuple(module.dilation),  # type: ignore[arg-type]
        in_positions=math.ceil(use.in_positions / images),
        out_positions=math.ceil(use.out_positions / images),
        reason=_reason(module, use, shared, depthwise=groups > 1 and shape[1] == 1),
        standardized=standardized_of(module),
    )


def _computed(module: nn.Module) -> bool:
    """Whether the weight is no parameter: parametrized, weight or spectral norm, pruned, or derived."""
    return module._parameters.get("weight") is None


def _kind(module: nn.Module) -> str:
    """The name of the module's class, without the class that torch.nn.utils.parametrize adds."""
    kinds = type(module).__mro__
    return kinds["parametrizations" in module._modules].__name__


def _shape(module: nn.Module) -> Shape:
    weight = module.weight() if callable(module.weight) else module.weight
    shape = tuple(weight.shape) if isinstance(weight, Tensor) and not is_lazy(weight) else (0, 0)
    if isinstance(module, _TRANSPOSED):  # stored as (in, out / groups, *taps)
        return (shape[1] * module.groups, shape[0] // module.groups, *shape[2:])
    return shape


def _reason(module: nn.Module, use: _Use, shared: set[nn.Module], depthwise: bool) -> str | None:
    """The first reason that applies. Depthwise comes last, because a recipe may override it."""
    if use.reason == "KD111":
        return "KD111"
    if _computed(module):
        return "KD105"
    if module in shared:
        return "KD106"
    if isinstance(module, _TRANSPOSED):
        return "KD104"
    if not use.calls:
        return "KD107"
    if use.sample is None or use.reason or not _reproduces(module, running_kernel(module), *use.sample):
        return "KD112"
    if not _keeps_kernel(module, use.sample[0]):
        return "KD105"
    return "KD103" if depthwise else None


def _keeps_kernel(module: nn.Module, x: Tensor) -> bool:
    """Whether the layer runs another kernel as it is too: half of its weights at half their size, the others zero.

    A layer that clamps, normalizes or quantizes its weight may run the weight that it has, but not a fitted one.
    """
    weight: Tensor = module.weight.detach()  # type: ignore[operator]
    mask = torch.arange(weight.numel(), device=weight.device).view_as(weight) % 2
    other = (running_kernel(module) * mask / 2).to(weight)
    how = standardized_of(module)
    changed = {name: buffer.clone() for name, buffer in module.named_buffers()}  # an observer changes its buffers
    changed["weight"] = other if how is None else encode(other, how._replace(bound=1.0))
    gain = getattr(module, "gain", None)
    if isinstance(gain, Tensor):
        changed["gain"] = torch.full_like(gain, 1 / float(module.scale))  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            y = functional_call(_Unhooked(module), {f"layer.{name}": own for name, own in changed.items()}, (x,))
    except Exception:  # noqa: BLE001 - a user's own layer can do anything with another weight
        return False
    return _reproduces(module, other if how is None else as_run(other, 1.0), x, y)


class _Unhooked(nn.Module):
    """A layer without its hooks, which have changed the sampled input already."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer.forward(x)


def _reproduces(module: nn.Module, kernel: Tensor, x: Tensor, y: Tensor) -> bool:
    """Whether the layer's output at a few positions is this kernel times the patches there."""
    positions = output_positions(module, x)
    if positions is None or y.numel() != positions * len(x) * _shape(module)[0]:
        return False
    kernel, bias = kernel.double(), getattr(module, "bias", None)
    groups = int(getattr(module, "groups", 1))
    kernel_goct = kernel.reshape(groups, -1, kernel.shape[1], max(1, math.prod(kernel.shape[2:])))
    y_po = (y if isinstance(module, nn.Linear) else y.movedim(1, -1)).reshape(-1, len(kernel)).double()
    some = torch.linspace(0, len(y_po) - 1, min(8, len(y_po))).long()
    rows_ntc = torch.cat(list(patches(module, x, some[None]))).double()
    rows_pgtc = rows_ntc.reshape(len(some), groups, *rows_ntc.shape[1:])
    product = torch.einsum("pgtc,goct->pgo", rows_pgtc, kernel_goct).flatten(1)
    expected = y_po[some.to(y.device)] - (bias.detach().double() if isinstance(bias, Tensor) else 0.0)
    if not expected.isfinite().all():  # calibration reports values that are not finite
        return True
    return bool(F.mse_loss(product, expected) <= _TOLERANCE**2 * expected.square().mean() + 1e-12)
