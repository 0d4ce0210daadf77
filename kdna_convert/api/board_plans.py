"""The limits of a target, from the options of a call."""

from __future__ import annotations

from ..core.choices import Database
from ..core.errors import PlanError, RecipeError
from ..core.specs import Plan
from ..inputs.boards import BYTES_PER_NUMBER, Board, load_board
from ..inputs.models import example_input
from ..inputs.recipe import Recipe, parse_latency, parse_size
from ..stages.boards import BoardTarget, board_limits
from ..stages.plan.budget import PlanBudget, budget_of
from ..stages.plan.costs import original_totals
from ..stages.plan.knapsack import solve
from .job import Job
from .keywords import BoardOptions, Targets

LIMITS = ("max_flash", "max_peak_memory", "max_latency")


def board_target(options: BoardOptions) -> BoardTarget | None:
    """The device of the options, with the board's own flash and memory where no other limits are given.

    None for options without a board and without limits.

    Raises:
        PlanError: KD506 for an invalid limit, or one of time without a board; KD511 for a profile that is invalid or
            has no figures for the arithmetic.
    """
    given = options.get("board")
    if given is None and all(options.get(name) is None for name in LIMITS):
        return None
    board = given if isinstance(given, Board) or given is None else load_board(given)
    arithmetic = options.get("arithmetic") or (board.arithmetics[0] if board is not None else "int8")
    if arithmetic not in BYTES_PER_NUMBER:
        raise PlanError("KD506", f"there is no arithmetic {arithmetic!r}; it is one of {', '.join(BYTES_PER_NUMBER)}")
    latency = options.get("max_latency")
    if latency is not None:
        parse_latency(latency, 1)
        if board is None:
            raise PlanError(
                "KD506", "a limit of latency needs a board, which says how fast it computes; pass --board (board=)"
            )
    flash, memory = _size(options.get("max_flash")), _size(options.get("max_peak_memory"))
    if board is not None:
        board.cycles(arithmetic)
        flash = board.flash.value if flash is None and board.flash is not None else flash
        memory = board.ram.value if memory is None and board.ram is not None else memory
    return BoardTarget(board, arithmetic, flash, memory, latency)


def _size(size: int | str | None) -> int | None:
    return None if size is None else parse_size(size)


def decides(on_board: BoardTarget | None) -> bool:
    """Whether anything is limited, so that a plan needs no budget."""
    if on_board is None:
        return False
    return any(limit is not None for limit in (on_board.flash, on_board.peak_memory, on_board.latency))


def require_unrouted(recipe: Recipe, on_board: BoardTarget | None) -> None:
    """Raise RecipeError KD203 for a recipe that routes: what a router takes of a device is not estimated."""
    routings = [recipe.routing, *(rule.routing for rule in recipe.rules if rule.routing is not None)]
    if on_board is not None and any(routing.name != "none" for routing in routings):
        message = "the recipe has a routing, whose cost on a board is not estimated; use routing: none"
        raise RecipeError("KD203", message)


def solved(job: Job, database: Database, targets: Targets, on_board: BoardTarget | None) -> Plan:
    """The plan for the targets and a device. Without a target, limits of the device replace the recipe's budget."""
    limited = decides(on_board) and all(target is None for target in targets)
    budget = None if limited else budget_of(original_totals(database), job.recipe, *targets)
    return solved_within(job, database, budget, on_board)


def solved_within(job: Job, database: Database, budget: PlanBudget | None, on_board: BoardTarget | None) -> Plan:
    """The plan for a budget and a device."""
    if on_board is None:
        return solve(database, budget)
    return solve(database, budget, board_limits(database, job.loaded.model, example_input(job.loaded.data), on_board))
