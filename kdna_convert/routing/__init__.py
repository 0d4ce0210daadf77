"""How a converted layer depends on its input: the table of routings and the interface each of them signs.

A routing is a frozen dataclass whose fields are the recipe's options. It builds a gate: a module that maps a layer's
input to the gated input and is the identity at step 0. The gate lives in the layer as `layer.gate`, and a forward
pre-hook that is a module-level function applies it: a closure would go on gating with the old module after a deepcopy.
"""

from __future__ import annotations

import zlib
from typing import Any, ClassVar, Protocol, cast

from torch import Tensor, nn

from ..errors import ModelError, PlanError
from ..specs import Family, Layer, Shape
from .se import Se


class Routing(Protocol):
    """See tests/test_routing.py for the laws every routing obeys."""

    name: ClassVar[str]

    def can_route(self, layer: Layer) -> str | None:
        """None, or the KD1xx code that says why this layer cannot have such a gate."""
        ...

    def tensors(self, shape: Shape, groups: int) -> dict[str, Shape]:
        """The gate's tensors by their names below `<layer>.gate.`, for a kernel of this shape; exact."""
        ...

    def macs(self, shape: Shape, groups: int) -> int:
        """Multiply-adds of the gate per image."""
        ...

    def build(self, shape: Shape, groups: int, seed: int) -> nn.Module:
        """The gate, at identity: a module with `is_identity() -> bool`. Draws from no global random state."""
        ...


ROUTINGS: dict[str, type[Any]] = {Se.name: Se}


def routing_of(family: Family) -> Routing | None:
    """A family's routing, None where it has none. Raises PlanError KD503 for a name or an option that is unknown."""
    name = family.routing
    if name is None:
        return None
    if name not in ROUTINGS:
        raise PlanError("KD503", f"this version of kdna has no routing {name!r}; it has {', '.join(ROUTINGS)}")
    try:
        routing: Routing = ROUTINGS[name](**family.routing_options)
    except TypeError as error:
        raise PlanError("KD503", f"family of {family.members[0]}: routing {name}: {error}") from None
    return routing


def attach(model: nn.Module, name: str, routing: Routing, seed: int = 0) -> nn.Module:
    """Put a gate on the input of the layer called `name`, in place; the model's outputs stay what they are.

    Each layer draws its own numbers from `seed` and its name, so a gate does not depend on which others there are.
    Raises ModelError KD113 when the layer has an attribute `gate` already.
    """
    layer: Any = model.get_submodule(name)
    if hasattr(layer, "gate"):
        raise ModelError("KD113", f"{name}: the layer has an attribute `gate` already; exclude it from the routing")
    weight: Tensor = layer.weight
    gate = routing.build(tuple(weight.shape), getattr(layer, "groups", 1), seed ^ zlib.crc32(name.encode()))
    layer.gate = gate.to(device=weight.device, dtype=weight.dtype).train(layer.training)
    layer.register_forward_pre_hook(_gate_input)
    return model


def detach(layer: nn.Module) -> nn.Module | None:
    """Take a layer's gate off, in place, and return it; None where there was none."""
    hooks = [key for key, hook in layer._forward_pre_hooks.items() if hook is _gate_input]
    if not hooks:
        return None
    for key in hooks:
        del layer._forward_pre_hooks[key]
    gate = cast("nn.Module", layer.gate)
    del layer.gate
    return gate


def gates(model: nn.Module) -> dict[str, Any]:
    """Every gate of a model, by the name of its layer."""
    routed = ((name, module) for name, module in model.named_modules() if _is_routed(module))
    return {name: module.gate for name, module in routed}


def _is_routed(layer: nn.Module) -> bool:
    return _gate_input in layer._forward_pre_hooks.values()


def _gate_input(layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (layer.gate(args[0]), *args[1:])
