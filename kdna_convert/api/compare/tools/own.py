"""kdna itself, by the verb that users call: its best recipe, and per-layer low rank as the yardstick for sharing.

kdna's net is folded: that is how it ships, and it costs what the original costs to run. Low rank runs factored wherever
that is cheaper, which is what one would take it for.
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
    """The conversion at the task's rung; its recipe says how many of the images it calibrates on."""
    option, rung, recipe = PEERS[task.peer].option, task.rung, task.recipe
    if option:
        same = {"calibration": recipe.calibration, "seed": recipe.seed}
        recipe = load_recipe(option).model_copy(update=same)
    if rung is None:
        raise ValueError(f"{task.peer} was given no budget")
    given: dict[str, Any] = {"target_params": rung.share} if rung.axis == "params" else {"target_bytes": rung.limit}
    if task.model is not None:
        given |= {"checkpoint": task.checkpoint, "inputs": task.inputs}
    conversion = convert(task.model or net, recipe=recipe, data=images, **given)
    planned = conversion.plan.planned
    run = factor if option else fold
    return Candidate(run(conversion.model), params=planned.params, bytes=planned.bytes)
