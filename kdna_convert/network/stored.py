"""A model's tensors by their names in model.safetensors.

A derived layer stores `<layer>.<letter>` for its adapter and, if it owns its family, for the shared tensors, instead of
`<layer>.weight`. All other tensors keep their state-dict keys. A tensor with several names is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError
from ..core.specs import Family, Plan, Shape, TensorSpec
from ..core.standardize import encode, standardized_by_name
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


def stored_name(layer: str, letter: str) -> str:
    """The name of a layer's tensor in the file. A net that is a single layer has no name."""
    return f"{layer}.{letter}" if layer else letter


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors to save by their names in the file, contiguous and without shared memory."""
    tensors = {file_name: tensor for file_name, (_, tensor) in _stored(model)[0].items()}
    return {name: _alone(tensor) for name, tensor in tensors.items()}


def stored_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the model, not copies, by their names in the file."""
    return {name: own for name, (_, own) in _stored(model)[0].items() if isinstance(own, nn.Parameter)}


def stored_specs(model: nn.Module) -> tuple[TensorSpec, ...]:
    """Name, shape and dtype of what stored_state returns, for any model, also on the meta device or not converted."""
    return tuple(_spec(name, tensor) for name, (_, tensor) in _stored(model)[0].items())


def family_specs(family: Family, shapes: Sequence[Shape]) -> list[TensorSpec]:
    """The tensors that a family of kernels of these shapes stores, by their names in the file."""
    scheme = scheme_of(family)
    layout = scheme.layout(shapes)
    parts = zip((family.members[0], *family.members), (layout.shared, *layout.adapters), strict=True)
    named = [(name, letter, concrete(shape, scheme)) for name, part in parts for letter, shape in part.items()]
    return [
        TensorSpec(stored_name(name, letter), size, "I16" if letter in layout.indices else "F32")
        for name, letter, size in named
        if 0 not in size
    ]


def load_stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Load stored tensors into a model, in place, and return it: the inverse of stored_state.

    A CPU model without tied tensors uses the given tensors themselves as its parameters, not copies. Buffers are
    copied, since a net may resize its own.

    Raises:
        CheckpointError: KD303, with the names that are missing, unexpected or of another shape or kind of number.
            Nothing is changed.
    """
    stored, alone = _stored(model)
    given = {name: _spec(name, tensor) for name, tensor in tensors.items()}
    require_fit([_spec(name, tensor) for name, (_, tensor) in stored.items()], given)
    local = all(tensor.device.type in ("cpu", "meta") for _, tensor in stored.values())
    state = {
        key: tensors[name] if isinstance(own, nn.Parameter) else tensors[name].clone()
        for name, (key, own) in stored.items()
    }
    state = with_versions(state, model)
    model.load_state_dict(state, strict=alone, assign=alone and local)
    return model


def require_fit(expected: Sequence[TensorSpec], given: Mapping[str, TensorSpec], optional: Sequence[str] = ()) -> None:
    """Check tensors before they are read or decoded, by what is known of them.

    Args:
        expected: What the model stores.
        given: What there is, by name.
        optional: Beginnings of names that may be there besides.

    Raises:
        CheckpointError: KD303, with the names that are missing, unexpected or of another shape or kind of number.
    """
    specs = {spec.name: spec for spec in expected}
    problems = [f"missing {name}" for name in specs if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in specs and not name.startswith(tuple(optional))]
    for name, spec in specs.items():
        own = given.get(name, spec)
        if own.shape != spec.shape:
            problems.append(f"{name} is {own.shape}, not {spec.shape}")
        elif _kind(own) != _kind(spec):
            problems.append(f"{name} is {own.dtype}, not {spec.dtype}")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError("KD303", f"the stored tensors do not fit the model: {', '.join(problems[:8])}{more}")


def folded_tensors(plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the folded net, from the stored tensors of a plan without routing.

    Equal to deriving, loading and folding, without building the derived layers. Raises CheckpointError KD303 if a
    tensor is missing.
    """
    state, shapes = dict(tensors), {layer.name: layer.shape for layer in plan.layers}
    standardized = standardized_by_name(plan.layers)
    try:
        for family in plan.families:
            scheme = scheme_of(family)
            layout = scheme.layout([shapes[name] for name in family.members])
            named = (layout.shared, *layout.adapters)
            owners = (family.members[0], *family.members)
            shared, *adapters = (
                {
                    letter: state.pop(stored_name(name, letter))
                    for letter in part
                    if 0 not in concrete(part[letter], scheme)
                }
                for name, part in zip(owners, named, strict=True)
            )
            for name, adapter in zip(family.members, adapters, strict=True):
                like = next(iter(adapter.values()))
                bank = {letter: tensor.to(like) for letter, tensor in shared.items()}
                kernel, how = scheme.expand(bank, adapter, shapes[name]), standardized.get(name)
                state[stored_name(name, "weight")] = (kernel if how is None else encode(kernel, how)).contiguous()
    except KeyError as error:
        raise CheckpointError("KD303", f"the stored tensors do not fit the plan: missing {error.args[0]}") from error
    return state


def _stored(model: nn.Module) -> tuple[dict[str, tuple[str, Tensor]], bool]:
    """Stored name -> (state-dict key, tensor), by the first name of each tensor; and whether no tensor has two."""
    names: dict[str, str] = {}
    for layer, derived in derived_layers(model).items():
        for part in ("shared", "adapter") if derived.is_owner else ("adapter",):
            for letter in getattr(derived, part):
                names[stored_name(layer, f"parametrizations.weight.0.{part}.{letter}")] = stored_name(layer, letter)
    visited: set[object] = set()
    stored: dict[str, tuple[str, Tensor]] = {}
    state = model.state_dict(keep_vars=True)
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError("KD303", f"{key}: the model's state holds a {type(tensor).__name__}, not a tensor")
        same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if _held(tensor) else id(tensor)
        if same not in visited:
            visited.add(same)
            stored[names.get(key, key)] = key, tensor
    return stored, len(stored) == len(state)


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), DTYPES[tensor.dtype])


def _kind(spec: TensorSpec) -> str:
    """F (floating point), F8, I (whole numbers), B (bool) or C (complex): one cannot stand for another."""
    if spec.dtype.startswith("F8"):
        return "F8"
    return "F" if spec.dtype == "BF16" else spec.dtype[0].replace("U", "I")


def _held(tensor: Tensor) -> bool:
    return tensor.device.type != "meta" and tensor.numel() > 0


def _alone(tensor: Tensor) -> Tensor:
    """A contiguous tensor that is alone in its storage; copied only if it must be."""
    tensor = tensor.detach().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
