"""The routings: how a layer depends on its input. `ROUTINGS` is the table, routing.py the interface."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ..core.errors import PlanError, reason_of
from ..core.specs import Route
from .averaging import mean_kernels
from .cond import Cond
from .context import Context
from .dyconv import DyConv
from .dymn import Dymn
from .dynamic_filters import choose_filters
from .frequency import Frequency
from .omni import Omni
from .partial import Partial, PartialRouter
from .router import Router, attach, detach, routers
from .routing import Routing
from .se import Se
from .warehouse import WarehouseRouting

__all__ = [
    "ROUTINGS",
    "Router",
    "Routing",
    "attach",
    "attach_routes",
    "calibrate_routers",
    "detach",
    "mean_kernels",
    "routers",
    "routing_of",
]

ROUTINGS: dict[str, type[Routing]] = {
    routing.name: routing for routing in (Se, Context, Dymn, Omni, Cond, DyConv, Partial, WarehouseRouting, Frequency)
}


def calibrate_routers(model: nn.Module, batches: Iterable[Tensor], seed: int = 0) -> nn.Module:
    """Set what routers take from calibration images, in place. The model's outputs do not change.

    Partial routers choose their dynamic filters (dynamic_filters.py). No other router needs images.
    """
    if any(isinstance(router, PartialRouter) for router in routers(model).values()):
        choose_filters(model, batches, seed)
    return model


def routing_of(route: Route) -> Routing:
    """The routing of a route. Raises PlanError KD503 for an unknown name or option, or a wrong type."""
    if route.routing not in ROUTINGS:
        names = ", ".join(ROUTINGS)
        raise PlanError("KD503", f"this version of kdna has no routing {route.routing!r}; it has {names}")
    where = f"route of {route.members[0]}: routing {route.routing}"
    unknown = route.options.keys() - {option.name for option in fields(ROUTINGS[route.routing])}
    if unknown:
        raise PlanError("KD503", f"{where}: no option {', '.join(sorted(unknown))}")
    try:
        return _reader(route.routing).validate_python(route.options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PlanError("KD503", f"{where}: {'.'.join(map(str, first['loc']))}: {reason_of(first)}") from None


@cache
def _reader(name: str) -> TypeAdapter[Routing]:
    return TypeAdapter(ROUTINGS[name])


def attach_routes(model: nn.Module, routes: Sequence[Route], seed: int = 0) -> nn.Module:
    """Attach the routers of every route, in place, and return the model. Its outputs do not change."""
    for route in routes:
        attach(model, route.layers, routing_of(route), seed)
    return model
