"""How a layer depends on its input: the table of routings, each of which signs the interface of router.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ..core.errors import PlanError
from ..core.specs import Route
from .cond import Cond
from .context import Context
from .dyconv import DyConv
from .dymn import Dymn
from .frequency import Frequency
from .means import mean_kernels
from .omni import Omni
from .partial import Partial, PartialRouter
from .partition import partition
from .router import Router, Routing, attach, detach, routers
from .se import Se
from .warehouse import Warehouse

__all__ = [
    "ROUTINGS",
    "Router",
    "Routing",
    "attach",
    "attach_routes",
    "detach",
    "mean_kernels",
    "routers",
    "routing_of",
    "settle",
]

ROUTINGS: dict[str, type[Any]] = {
    Se.name: Se,
    Context.name: Context,
    Dymn.name: Dymn,
    Omni.name: Omni,
    Cond.name: Cond,
    DyConv.name: DyConv,
    Partial.name: Partial,
    Warehouse.name: Warehouse,
    Frequency.name: Frequency,
}


def settle(model: nn.Module, batches: Iterable[Tensor], seed: int = 0) -> nn.Module:
    """Let routers that take something from images take it, in place; the model's outputs stay what they are.

    Partial ones choose the filters that are dynamic (partition.py); no other asks for images.
    """
    if any(isinstance(router, PartialRouter) for router in routers(model).values()):
        partition(model, batches, seed)
    return model


def routing_of(route: Route) -> Routing:
    """A route's routing. Raises PlanError KD503 for a name or an option that is unknown."""
    if route.routing not in ROUTINGS:
        known = ", ".join(ROUTINGS)
        raise PlanError("KD503", f"this version of kdna has no routing {route.routing!r}; it has {known}")
    try:
        routing: Routing = ROUTINGS[route.routing](**route.options)
    except TypeError as error:
        raise PlanError("KD503", f"route of {route.members[0]}: routing {route.routing}: {error}") from None
    return routing


def attach_routes(model: nn.Module, routes: Sequence[Route], seed: int = 0) -> nn.Module:
    """Put every route's routers into a model, in place, and return it; its outputs stay what they are."""
    for route in routes:
        attach(model, route.layers, routing_of(route), seed)
    return model
