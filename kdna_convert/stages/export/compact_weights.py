"""A net that computes its weights from what the folder stores: factors, indices, integers and their steps.

Each stored tensor becomes a module whose buffers have the smallest dtype that holds its numbers, and whose forward pass
returns the tensor. A derived layer computes its weight from these modules by its scheme. A tracer of the net sees the
whole computation, so no scheme needs code of its own here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from ...codecs import Quantized
from ...codecs.quantization_steps import FACTORS, Entropy, scale_integers, step_of
from ...network.derive import Derived, derived_layers
from ...network.folder import Conversion
from ...network.packed import logarithmic_norms, quantized
from ...network.stored import stored_parameters

# Fewer numbers stay float32: the nodes that restore them would take as many bytes.
_FEW = 32
# Half the values of four bits.
_HALF_BYTE = 8
# A module of these does not read its parameters by attribute.
_OTHERWISE = (nn.RNNBase, nn.ParameterList, nn.ParameterDict)


class Stored(nn.Module):
    """A tensor in its stored form, and how it is restored: `restore` gets the buffers and returns it.

    As a parametrization it takes the place of a parameter: no original is kept. `name` is that of the folder.
    """

    name = ""

    def __init__(self, restore: Callable[..., Tensor], *parts: Tensor) -> None:
        super().__init__()
        self.restore = restore
        for place, part in enumerate(parts):
            self.register_buffer(f"part{place}", part.contiguous())

    def forward(self) -> Tensor:
        return self.restore(*self.buffers())

    def right_inverse(self, value: Tensor) -> tuple[()]:
        return ()


class Weight(nn.Module):
    """The weight of a derived layer, computed from stored tensors."""

    def __init__(self, derived: Derived, forms: Mapping[int, Stored]) -> None:
        super().__init__()
        self.shared = nn.ModuleDict({letter: forms[id(tensor)] for letter, tensor in derived.shared.items()})
        self.adapter = nn.ModuleDict({letter: forms[id(tensor)] for letter, tensor in derived.adapter.items()})
        self.expand = partial(derived.scheme.expand, shape=derived.shape)
        self.weight_of = derived.weight_of

    def forward(self) -> Tensor:
        shared, adapter = ({k: form() for k, form in part.items()} for part in (self.shared, self.adapter))
        return self.weight_of(self.expand(shared, adapter))

    def right_inverse(self, value: Tensor) -> tuple[()]:
        return ()


class Rounded(nn.Module):
    """A computed tensor in 16 bits."""

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.form = form

    def forward(self) -> Tensor:
        tensor: Tensor = self.form()
        return tensor.half()

    def right_inverse(self, value: Tensor) -> tuple[()]:
        return ()


def halved(net: nn.Module) -> nn.Module:
    """Round a net to 16 bits, in place, and return it. Batch normalizations keep 32: the graph folds them."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.half()
    return net


def compact_weights(net: nn.Module, conversion: Conversion, *, half: bool = False) -> nn.Module:
    """Make a net compute its weights from what the conversion stores, in place, and return it.

    Args:
        net: A copy of the conversion's model with folded weights, with `half` after `halved`.
        conversion: The converted net.
        half: Whether computed weights are rounded to 16 bits, and floats stored in them.
    """
    forms = _forms(conversion, half)
    derived = derived_layers(conversion.model)
    for name, module in conversion.model.named_modules():
        if name in derived:
            _compute(net.get_submodule(name), "weight", Weight(derived[name], forms))
        for key, parameter in module._parameters.items():
            form = forms.get(id(parameter))
            as_it_is = (_same, _widened) if half and not isinstance(module, _BatchNorm) else (_same,)
            if form is not None and form.restore not in as_it_is and not isinstance(module, _OTHERWISE):
                _compute(net.get_submodule(name), key, form)
    return net


def file_names(net: nn.Module, prefix: str) -> dict[str, str]:
    """The names in the file of the net's tensors: those of the folder, with a number for each further part.

    Args:
        net: A module that `compact_weights` changed, or one that holds it.
        prefix: What the names of the changed module's tensors begin with.
    """
    names = {name: name.removeprefix(prefix) for name in net.state_dict()}
    for path, module in net.named_modules(remove_duplicate=False):
        if isinstance(module, Stored):
            parts = [f"{module.name}{f'.{place}' if place else ''}" for place, _ in enumerate(module.buffers())]
            names |= {f"{path}.part{place}": part for place, part in enumerate(parts)}
    return names


def _compute(layer: nn.Module, key: str, form: nn.Module) -> None:
    """Put a computed tensor in the place of a parameter, in 16 bits if that has these."""
    form = Rounded(form) if getattr(layer, key).dtype is torch.float16 else form
    parametrize.register_parametrization(layer, key, form, unsafe=True)


def _forms(conversion: Conversion, half: bool) -> dict[int, Stored]:
    """The form of each parameter of the model, by its id; with `half`, floats of 32 bits are rounded to 16."""
    coded = {} if conversion.coded is None else quantized(conversion.coded)
    norms = {} if conversion.coded is None else logarithmic_norms(conversion.coded)
    forms = {}
    for name, parameter in stored_parameters(conversion.model).items():
        tensor, (layer, _, letter) = parameter.detach().cpu(), name.rpartition(".")
        if name in coded:
            form = _of_steps(coded[name], tensor.dtype)
        elif layer in norms:
            form = _of_norm(letter, tensor, norms[layer])
        else:
            form = _of_values(tensor, half)
        form.name = name
        forms[id(parameter)] = form
    return forms


def _of_values(tensor: Tensor, half: bool) -> Stored:
    """Indices in the fewest bytes, floats in 16 bits if these hold them exactly, or with `half` all that they hold."""
    if not tensor.is_floating_point():
        return Stored(_same, narrow(tensor))
    if tensor.dtype == torch.float32 and tensor.numel() > _FEW:
        for dtype in (torch.float16, torch.bfloat16):
            if torch.equal(tensor.to(dtype).float(), tensor):
                return Stored(_widened, tensor.to(dtype))
        if half and tensor.half().isfinite().all():
            return Stored(_widened, tensor.half())
    return Stored(_same, tensor)


def _of_steps(coded: Quantized, dtype: torch.dtype) -> Stored:
    integers = narrow(coded.integers)
    if coded.step.ndim == 0:
        return Stored(partial(_multiples, step=float(coded.step), dtype=dtype), integers)
    step = coded.step.bfloat16()
    if integers.numel() and int(integers.abs().max()) < _HALF_BYTE:
        nibbles = F.pad(integers.flatten() + _HALF_BYTE, (0, integers.numel() % 2)).to(torch.uint8).view(-1, 2)
        return Stored(partial(_unpacked, shape=integers.shape, dtype=dtype), nibbles[:, 0] + 16 * nibbles[:, 1], step)
    return Stored(partial(_multiples_of_rows, dtype=dtype), integers, step)


def _of_norm(letter: str, tensor: Tensor, step: int) -> Stored:
    """The scales of a normalization as logarithms and signs, the shifts as multiples of a step."""
    if letter == "bias":
        integers = torch.from_numpy(Entropy().integers(tensor, step))
        return _of_steps(Quantized(integers, torch.tensor(step_of(step))), tensor.dtype)
    logarithm, negative = (narrow(torch.from_numpy(part)) for part in scale_integers(tensor))
    return Stored(_powers, logarithm, negative) if negative.any() else Stored(_powers, logarithm)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float()


def _multiples(integers: Tensor, step: float, dtype: torch.dtype) -> Tensor:
    return (integers.float() * step).to(dtype)


def _multiples_of_rows(integers: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    return (integers.float() * step.float()).to(dtype)


def _unpacked(pairs: Tensor, step: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Two integers of each byte, the lower bits first, times the steps of their rows."""
    upper = (pairs.float() / 16).floor()
    integers = torch.stack([pairs.float() - 16 * upper, upper], 1).flatten()[: shape.numel()].view(shape)
    return ((integers - _HALF_BYTE) * step.float()).to(dtype)


def _powers(logarithm: Tensor, negative: Tensor | None = None) -> Tensor:
    scale = (logarithm.float() / FACTORS).exp2()
    return scale if negative is None else scale * (1 - 2 * negative.float())


def narrow(integers: Tensor) -> Tensor:
    """The integers in the smallest dtype that holds them."""
    low, high = (int(edge) for edge in integers.aminmax()) if integers.numel() else (0, 0)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return integers.to(dtype)
    return integers
