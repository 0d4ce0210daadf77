"""A target latency and limits of a board in a run: checks before the work, and what a resumed run must have."""

from __future__ import annotations

from typing import Any

from ..core.errors import PlanError
from ..inputs.recipe import Recipe
from .board_plans import board_target, require_unrouted
from .keywords import PlanLimits, RunOptions, Targets
from .latency import clock_of, require_runtime


def limits_of(options: RunOptions) -> PlanLimits:
    """The options of a run that limit its plan."""
    kept: Any = {name: value for name, value in options.items() if name in PlanLimits.__annotations__}
    own: PlanLimits = kept
    return own


def require_limits(recipe: Recipe, targets: Targets, limits: PlanLimits) -> None:
    """Raise before the work for limits and targets that the recipe cannot be planned for.

    Args:
        recipe: The recipe at the size of the file.
        targets: Those of the call. With a codec, the size of the file is the codec's and not the plan's.
        limits: Those of the call.

    Raises:
        ModelError: KD312 for a runtime that is not installed.
        PlanError: KD506 for two targets, or for a recipe that converts no layer; KD510, KD511.
        RecipeError: KD203 for a routing on a board.
    """
    planned = targets if recipe.codec is None else targets._replace(bytes=None)
    given = [name for name, value in planned._asdict().items() if value is not None]
    if len(given) > 1:
        raise PlanError("KD506", f"give one budget, not {len(given)} ({', '.join(given)})")
    on_board = board_target(limits)
    require_runtime(limits)
    require_unrouted(recipe, on_board)
    if recipe.fits or (on_board is None and targets.latency is None):
        return
    codec = "" if recipe.codec is None else f"; its codec, {recipe.codec}, decides the size of the file alone"
    way_out = "use a recipe with a scheme, such as faster, or leave out --target-latency and the limits of a board"
    raise PlanError("KD506", f"at this size the recipe converts no layer{codec}: {way_out}")


def limits_mark(limits: PlanLimits) -> dict[str, Any]:
    """What makes another run of one with these limits, as JSON; empty without limits."""
    mark: dict[str, Any] = {}
    if limits.get("target_latency") is not None:
        clock = clock_of(limits)
        times = [clock.runtime.name, clock.threads, clock.machine]
        mark["latency"] = [str(limits.get("target_latency")), *times]
    on_board = board_target(limits)
    if on_board is not None:
        board = None if on_board.board is None else on_board.board.model_dump(mode="json")
        latency = None if on_board.latency is None else str(on_board.latency)
        mark["board"] = [board, on_board.arithmetic, on_board.flash, on_board.peak_memory, latency]
    return mark
