"""A model's tensors by their names in model.safetensors.

A derived layer stores `<layer>.<letter>` for its adapter and, if it owns its family, for the shared tensors, instead of
`<layer>.weight`. All other tensors keep their state-dict keys. A tensor with several names is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError
from ..core.specs import Plan, TensorSpec
from ..core.versions import with_versions
from ..schemes import concrete, scheme_of
from .derive import derived_layers

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors to save by their names in the file, contiguous and without shared memory."""
    tensors = {file_name: tensor for file_name, (_, tensor) in _stored(model)[0].items()}
    return {name: _alone(tensor) for name, tensor in tensors.items()}


def stored_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the model, not copies, by their names in the file."""
    return {name: own for name, (_, own) in _stored(model)[0].items() if isinstance(own, nn.Parameter)}


def stored_specs(model: nn.Module) -> tuple[TensorSpec, ...]:
    """Name, shape and dtype of what stored_state returns, for any model, also on the meta device or not converted."""
    return tuple(
        TensorSpec(name, tuple(tensor.shape), DTYPES[tensor.dtype]) for name, (_, tensor) in _stored(model)[0].items()
    )


def load_stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Load stored tensors into a model, in place, and return it: the inverse of stored_state.

    A CPU model without tied tensors uses the given tensors themselves, not copies.

    Raises:
        CheckpointError: KD303, with the names that are missing, unexpected or of another shape. Nothing is changed.
    """
    stored, alone = _stored(model)
    problems = [f"missing {name}" for name in stored if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in stored]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, (_, tensor) in stored.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError("KD303", f"the stored tensors do not fit the model: {', '.join(problems[:8])}{more}")
    local = all(tensor.device.type in ("cpu", "meta") for _, tensor in stored.values())
    state = with_versions({key: tensors[name] for name, (key, _) in stored.items()}, model)
    model.load_state_dict(state, strict=alone, assign=alone and local)
    return model


def folded_tensors(plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the folded net, from the stored tensors of a plan without routing.

    Equal to deriving, loading and folding, without building the derived layers. Raises CheckpointError KD303 if a
    tensor is missing.
    """
    state, shapes = dict(tensors), {layer.name: layer.shape for layer in plan.layers}
    try:
        for family in plan.families:
            scheme = scheme_of(family)
            layout = scheme.layout([shapes[name] for name in family.members])
            named = (layout.shared, *layout.adapters)
            owners = (family.members[0], *family.members)
            shared, *adapters = (
                {letter: state.pop(f"{name}.{letter}") for letter in part if 0 not in concrete(part[letter], scheme)}
                for name, part in zip(owners, named, strict=True)
            )
            for name, adapter in zip(family.members, adapters, strict=True):
                like = next(iter(adapter.values()))
                bank = {letter: tensor.to(like) for letter, tensor in shared.items()}
                state[f"{name}.weight"] = scheme.expand(bank, adapter, shapes[name]).contiguous()
    except KeyError as error:
        raise CheckpointError("KD303", f"the stored tensors do not fit the plan: missing {error.args[0]}") from error
    return state


def _stored(model: nn.Module) -> tuple[dict[str, tuple[str, Tensor]], bool]:
    """Stored name -> (state-dict key, tensor), by the first name of each tensor; and whether no tensor has two."""
    names: dict[str, str] = {}
    for layer, derived in derived_layers(model).items():
        dot = f"{layer}." if layer else ""
        for part in ("shared", "adapter") if derived.is_owner else ("adapter",):
            for letter in getattr(derived, part):
                names[f"{dot}parametrizations.weight.0.{part}.{letter}"] = f"{dot}{letter}"
    seen: set[object] = set()
    stored: dict[str, tuple[str, Tensor]] = {}
    state = model.state_dict(keep_vars=True)
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError("KD303", f"{key}: the model's state holds a {type(tensor).__name__}, not a tensor")
        same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if _held(tensor) else id(tensor)
        if same not in seen:
            seen.add(same)
            stored[names.get(key, key)] = key, tensor
    return stored, len(stored) == len(state)


def _held(tensor: Tensor) -> bool:
    return tensor.device.type != "meta" and tensor.numel() > 0


def _alone(tensor: Tensor) -> Tensor:
    """A contiguous tensor that is alone in its storage; copied only if it must be."""
    tensor = tensor.detach().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
