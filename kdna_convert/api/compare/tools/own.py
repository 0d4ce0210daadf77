"""kdna itself, through `convert`: with the given recipe, and with low rank per layer as a baseline for sharing.

kdna's net runs folded, as it is deployed, at the cost of the original. Low rank runs factored wherever that is cheaper,
since speed is its usual purpose.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ....inputs.recipe import load_recipe
from ....network.derive import factor, fold
from ...convert import convert
from ..peers import PEERS
from ..task import Candidate, Task


def compress(net: nn.Module, images: Tensor, task: Task) -> Candidate:
    """The conversion at the budget of the task. The recipe sets how many of the images are for calibration."""
    option, rung, recipe = PEERS[task.peer].option, task.rung, task.recipe
    if option:
        settings = {"calibration": recipe.calibration, "seed": recipe.seed}
        recipe = load_recipe(option).model_copy(update=settings)
    if rung is None:
        raise ValueError(f"{task.peer} has no budget")
    arguments: dict[str, Any] = {"target_params": rung.share} if rung.axis == "params" else {"target_bytes": rung.limit}
    if task.model is not None:
        arguments |= {"checkpoint": task.checkpoint, "inputs": task.inputs}
    conversion = convert(task.model or net, recipe=recipe, data=images, **arguments)
    planned = conversion.plan.planned
    run = factor if option else fold
    return Candidate(run(conversion.model), params=planned.params, bytes=planned.bytes)
