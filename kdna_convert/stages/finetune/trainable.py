"""Which parameters a fine-tune trains."""

from __future__ import annotations

from collections.abc import Set

from torch import nn

from ...network.derive import derived_layers
from ...routing import routers


def trainable(model: nn.Module, which: str = "adapters", codes: Set[int] = frozenset()) -> tuple[int, int]:
    """Set requires_grad of every parameter for a fine-tune, in place.

    Args:
        model: The net.
        which: "norms": parameters with one number per channel (affine of norms, biases, gains, layer scales). "codes":
            norms and the tensors in `codes`. "adapters": norms, adapters and routers. "shared": these and the shared
            tensors. "all": every floating-point parameter.
        codes: The ids of the tensors that "codes" adds.

    Returns:
        The numbers of trainable and of all parameters.
    """
    derived = derived_layers(model).values()
    own = {id(tensor) for weight in derived for tensor in weight.adapter.values()}
    own |= {id(tensor) for router in routers(model).values() for tensor in router.parameters()}
    shared = {id(tensor) for weight in derived for tensor in weight.shared.values()}
    for parameter in model.parameters():
        key = id(parameter)
        small = parameter.ndim == 0 or parameter.numel() == len(parameter)
        if which in ("norms", "codes"):
            chosen = key in codes or (small and key not in own | shared)
        else:
            chosen = which == "shared" if key in shared else small or key in own
        parameter.requires_grad_(parameter.is_floating_point() and (chosen or which == "all"))
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(n for n, on in counts if on), sum(n for n, _ in counts)
