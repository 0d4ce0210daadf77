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
from ..tool_run import Candidate, ToolRun


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """The conversion at the budget of the tool_run. The recipe sets how many of the images are for calibration."""
    option, rung, recipe = PEERS[tool_run.peer].option, tool_run.rung, tool_run.recipe
    if option:
        settings = {"calibration": recipe.calibration, "seed": recipe.seed}
        recipe = load_recipe(option).model_copy(update=settings)
    if rung is None:
        raise ValueError(f"{tool_run.peer} has no budget")
    arguments: dict[str, Any] = {"target_params": rung.share} if rung.axis == "params" else {"target_bytes": rung.limit}
    arguments["outputs"] = tool_run.outputs
    if tool_run.model is not None:
        arguments |= {"checkpoint": tool_run.checkpoint, "inputs": tool_run.inputs}
    conversion = convert(tool_run.model or net, recipe=recipe, data=images, **arguments)
    planned = conversion.plan.planned
    run = factor if option else fold
    return Candidate(run(conversion.model), params=planned.params, bytes=planned.bytes)
