"""The plain net inside wrappers, and the nets that cannot be converted whatever their layers are."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from ...core.errors import ModelError, cause
from ...core.modes import eval_mode


def unwrapped(model: nn.Module) -> nn.Module:
    """The net without DataParallel, DistributedDataParallel and torch.compile, also around its parts, in place.

    Tensors that the net keeps as plain attributes lose their autograd graph, since they cannot be copied with it.
    """
    model = _inner(model)
    for module in model.modules():
        for name, child in module._modules.items():
            if child is not None and _inner(child) is not child:
                module._modules[name] = _inner(child)
        vars(module).update({name: value.detach() for name, value in _with_graph(module)})
    return model


def unwrapped_copy(model: nn.Module) -> nn.Module:
    """The same of a copy; `model` stays as it is."""
    model = _inner(model)
    kept = [value for module in model.modules() for _, value in _with_graph(module)]
    return unwrapped(copy.deepcopy(model, {id(value): value.detach().clone() for value in kept}))


def require_usable(model: nn.Module, name: str) -> None:
    """Raise ModelError KD302 for a net that can never be converted, copied and stored."""
    complaint = _complaint(model)
    if complaint:
        raise ModelError("KD302", f"{name}: {complaint}")


def _with_graph(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The plain attributes that are tensors with an autograd graph, as torch's older weight norm and pruning keep."""
    return [(name, value) for name, value in vars(module).items() if isinstance(value, Tensor) and not value.is_leaf]


def _inner(module: nn.Module) -> nn.Module:
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif type(module).__name__ == "OptimizedModule":  # torch.compile's; importing the class takes a second
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def _complaint(model: nn.Module) -> str | None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            return f"{name} is not initialized yet (lazy); run the net once on an example where it is built"
        if tensor.is_complex() and isinstance(tensor, nn.Parameter):
            return f"{name} is complex; only nets of real numbers are converted: split it into two real tensors"
        if tensor.is_meta:
            return f"{name} has no values (meta device); build the net on the CPU"
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            return f"its state holds {name}, a {type(value).__name__} (quantized, or an extra state); {_FLOAT}"
        if value.is_quantized:
            return f"{name} is quantized; {_FLOAT}"
    try:
        with eval_mode(model):  # restores the mode of every module: the model may be the user's own
            pass
    except Exception as error:  # noqa: BLE001 - an exported graph refuses
        return f"it has no train and eval mode ({cause(error)}); pass the net that was exported"
    return _uncopied(model)


_FLOAT = "convert the float net first, and quantize the folded result"


def _uncopied(model: nn.Module) -> str | None:
    """The first attribute that cannot be copied. The tensors themselves are not copied here."""
    kept = [value for module in model.modules() for _, value in _with_graph(module)]
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers(), *kept]}
    try:
        copy.deepcopy(model, dict(shared))
    except Exception as error:  # noqa: BLE001 - an attribute may raise anything
        for path, module in model.named_modules():
            for name, value in vars(module).items():
                if name != "_modules" and not _copies(value, shared):
                    where = ".".join(part for part in (path, name) if part)
                    way_out = "delete the attribute before the conversion, or give the net a __deepcopy__"
                    return f"it cannot be copied because of {where}, a {type(value).__name__}; {way_out}"
        return f"it cannot be copied ({cause(error)}); give it a __deepcopy__"
    return None


def _copies(value: object, shared: dict[int, Tensor]) -> bool:
    try:
        copy.deepcopy(value, dict(shared))
    except Exception:  # noqa: BLE001 - an attribute may raise anything
        return False
    return True
