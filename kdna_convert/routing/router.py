"""What stands at a layer to make it depend on its input, and how it gets there: attach, detach, routers.

A router lives in its layer as `layer.gate`, so its tensors are called `<layer>.gate.<name>`. It runs the layer: the
instance's `forward` is a partial of a module-level function, which deepcopy and pickle follow to the copy. Routers that
share tensors hold them as derived weights do (derive.py, Note [Borrowed tensors]): the first member's registers them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..core.errors import ModelError, PlanError
from ..core.specs import Layer
from .modulation import Form, Modulation, run

if TYPE_CHECKING:
    from .routing import Routing

Static = Callable[[Tensor], Tensor]


class Router(nn.Module):
    """A layer's input-dependent part: `forward(x, weight)` says what one batch does to the layer, as a Modulation.

    `spatial` is the number of position axes after the channel axis; 0 is a linear layer, its channels last. `form` is
    how kernels that differ from image to image are run. Built at the identity; nothing in it may depend on the batch.
    """

    form: Form = "each"

    def __init__(self, spatial: int) -> None:
        super().__init__()
        self.spatial = spatial

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        raise NotImplementedError

    def stand(self, layers: Sequence[nn.Module], place: int) -> None:
        """Told by attach which layers the group stands at and which is its own: for routers that read their weights."""

    def fix(self, weight: Tensor) -> None:
        """Told by an export that the layer keeps this weight for good: for what a router makes of the weight alone."""

    def is_identity(self) -> bool:
        """Whether every input gives exactly what the layer alone makes of it."""
        raise NotImplementedError

    def route(self, layer: nn.Module, static: Static, x: Tensor) -> Tensor:
        """The layer's output; `static` is the layer without its router."""
        if x.ndim == self.spatial + 1:  # one image without a batch axis
            return self.route(layer, static, x[None])[0]
        weight = cast("Tensor", layer.weight)
        return run(layer, static, x, weight, self(x, weight), self.form)


def attach(model: nn.Module, layers: Sequence[Layer], routing: Routing, seed: int = 0) -> nn.Module:
    """Put routers on one group of layers, in place, and return the model; its outputs stay what they are.

    Each layer draws its own numbers from `seed` and its name, so a router does not depend on which others there are.
    Raises ModelError KD113 when a layer has an attribute `gate` already, PlanError KD503 where there is no such layer.
    """
    modules = [_module(model, layer.name) for layer in layers]
    weights = [weight if isinstance(weight := getattr(m, "weight", None), Tensor) else None for m in modules]
    with torch.no_grad():
        starts = [None if weight is None else weight.detach() for weight in weights]
        routers = routing.build(layers, starts, [seed ^ zlib.crc32(layer.name.encode()) for layer in layers])
    for place, (module, weight, router) in enumerate(zip(modules, weights, routers, strict=True)):
        router.stand(modules, place)
        like = weight if weight is not None else next(model.parameters())
        module.gate = router.to(device=like.device, dtype=like.dtype).train(module.training)
        module.forward = partial(_routed, module)
    return model


def detach(layer: nn.Module) -> Router | None:
    """Take a layer's router off, in place, and return it; None where there was none."""
    if not _is_routed(layer):
        return None
    del layer.forward
    router = cast("Router", layer.gate)
    del layer.gate
    return router


def routers(model: nn.Module) -> dict[str, Router]:
    """Every router of a model, by the name of its layer."""
    routed = ((name, module) for name, module in model.named_modules() if _is_routed(module))
    return {name: cast("Router", module.gate) for name, module in routed}


def _module(model: nn.Module, name: str) -> Any:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise PlanError("KD503", f"the model has no layer {name!r}") from None
    if hasattr(module, "gate"):
        raise ModelError("KD113", f"{name}: the layer has an attribute `gate` already; exclude it from the routing")
    return module


def _is_routed(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func is _routed


def _routed(layer: Any, x: Tensor) -> Tensor:
    return cast("Tensor", layer.gate.route(layer, partial(type(layer).forward, layer), x))
