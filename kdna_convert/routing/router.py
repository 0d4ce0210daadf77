"""The router of a layer, and how it is attached: attach, detach, routers.

A router is stored in its layer as `layer.gate`, so its tensors are called `<layer>.gate.<name>`. It runs the layer: the
instance's `forward` is a partial of a module-level function, so that deepcopy and pickle bind it to the copy. Routers
that share tensors hold them as derived weights do (network/derive.py, Note [Borrowed tensors]): the first member
registers them.
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
from .convolution import KernelForm, run
from .modulation import Modulation

if TYPE_CHECKING:
    from .routing import Routing

StaticForward = Callable[[Tensor], Tensor]


class Router(nn.Module):
    """The input-dependent part of a layer. `forward` returns what one batch does to the layer.

    A router is built at the identity, and nothing in it may depend on the other images of the batch.

    Attributes:
        spatial: The number of position axes after the channel axis. 0 is a linear layer, whose channels are last.
        form: How kernels that differ between images are run (convolution.py).
    """

    form: KernelForm = "each"

    def __init__(self, spatial: int) -> None:
        super().__init__()
        self.spatial = spatial

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        """The modulation of the layer with kernel `weight` for the batch `x`."""
        raise NotImplementedError

    def bind(self, layers: Sequence[nn.Module], place: int) -> None:
        """Called by `attach` with the layers of the group and the place of the router's own. For routers that read
        the weights of other layers."""

    def precompute(self, weight: Tensor) -> None:
        """Called by an export once the layer's weight is final. For what depends on the weight alone."""

    def is_identity(self) -> bool:
        """Whether the layer gives for every input exactly what it gives without the router."""
        raise NotImplementedError

    def route(self, layer: nn.Module, static: StaticForward, x: Tensor) -> Tensor:
        """The layer's output for `x`. `static` is the layer's forward pass without its router."""
        if x.ndim == self.spatial + 1:  # one image without a batch axis
            return self.route(layer, static, x[None])[0]
        weight = cast("Tensor", layer.weight)
        return run(layer, static, x, weight, self(x, weight), self.form)


def attach(model: nn.Module, layers: Sequence[Layer], routing: Routing, seed: int = 0) -> nn.Module:
    """Attach routers to one group of layers, in place. The model's outputs do not change.

    Each layer's seed comes from `seed` and the layer's name, so a router does not depend on which others there are.

    Args:
        model: The net.
        layers: A group that `routing.groups` returned.
        routing: The routing.
        seed: Seed of the routers' random numbers.

    Returns:
        The model.

    Raises:
        ModelError: KD113 for a layer with an attribute `gate` of its own.
        PlanError: KD503 for a layer that the model lacks.
    """
    modules = [_module(model, layer.name) for layer in layers]
    weights = [weight if isinstance(weight := getattr(m, "weight", None), Tensor) else None for m in modules]
    with torch.no_grad():
        starts = [None if weight is None else weight.detach() for weight in weights]
        built = routing.build(layers, starts, [seed ^ zlib.crc32(layer.name.encode()) for layer in layers])
    for place, (module, weight, router) in enumerate(zip(modules, weights, built, strict=True)):
        router.bind(modules, place)
        like = weight if weight is not None else next(model.parameters())
        module.gate = router.to(device=like.device, dtype=like.dtype).train(module.training)
        module.forward = partial(_routed, module)
    return model


def detach(layer: nn.Module) -> Router | None:
    """Take a layer's router off, in place, and return it, or None if there is none."""
    if not _is_routed(layer):
        return None
    del layer.forward
    router = cast("Router", layer.gate)
    del layer.gate
    return router


def routers(model: nn.Module) -> dict[str, Router]:
    """Every router of a model by the name of its layer."""
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
