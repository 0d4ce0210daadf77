"""The task of a net: named by the user or a recipe, or chosen from what the net returns; and the user's own metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..core.errors import KdnaError, ModelError, RecipeError, cause
from ..core.measurements import Evaluation
from ..core.plugin_names import TaskName
from ..core.specs import DataConfig
from ..inputs.models import example_input, user_function
from ..inputs.recipe import parse_recipe
from ..network.folder import Conversion
from ..network.inference import device_of, evaluating
from ..tasks import TASKS, Task, choose, run

Metric = Callable[[nn.Module, Iterable[Any]], float]


@dataclass(frozen=True)
class NetTask:
    """The task, and why it was chosen; None where the user named it."""

    task: Task
    why: str | None

    @property
    def note(self) -> str:
        """The choice for a report."""
        return f"task: {self.task.name}, since {self.why}; --task names another"


def task_of(net: nn.Module, config: DataConfig, options: Mapping[str, Any], recipe_task: str | None = None) -> NetTask:
    """The task of a net. The net runs on one example input.

    Args:
        net: The net.
        config: Its input.
        options: `task` and `outputs` of TaskOptions.
        recipe_task: The recipe's task, which `task` overrides.

    Raises:
        ModelError: KD308 for outputs of another task than the one named, KD313 if none is named and several fit, KD314
            for a function of `outputs` that fails.
        RecipeError: KD203 for an unknown task.
    """
    named, given = options.get("task") or recipe_task, options.get("outputs")
    if named is not None and named not in TASKS:
        raise RecipeError("KD203", f"task: there is no task {named!r}; it is one of {', '.join(get_args(TaskName))}")
    pick = None if given is None else _picker(user_function(given, "--outputs"))
    inputs = example_input(config).to(device_of(net))
    if named is None:
        with evaluating(net):
            returned = _returned(net, inputs)
            chosen = choose(net, inputs, returned if pick is None else pick(returned))
        return NetTask(_with(TASKS[chosen.name], pick), chosen.why)
    task = _with(TASKS[named], pick)
    with evaluating(net):
        run(task, net, inputs, lambda own: _returned(net, own))
    return NetTask(task, None)


def task_to_draw(net: nn.Module, config: DataConfig, options: Mapping[str, Any], recipe_task: str | None) -> NetTask:
    """As task_of, where nothing is measured and the task decides only which gradients are drawn.

    It is `raw` for outputs that leave it open.
    """
    try:
        return task_of(net, config, options, recipe_task)
    except ModelError as error:
        if error.code not in ("KD308", "KD313") or options.get("task") or recipe_task:
            raise
        return NetTask(TASKS["raw"], None)


def conversion_task(conversion: Conversion, options: Mapping[str, Any], *, measured: bool = True) -> Task:
    """The task of a conversion: by its recipe, or chosen. `measured`: whether its outputs are compared."""
    choose_task = task_of if measured else task_to_draw
    return choose_task(conversion.model, conversion.data, options, parse_recipe(conversion.recipe).task).task


def metric_of(options: Mapping[str, Any]) -> Metric | None:
    """The user's metric, which raises ModelError KD314 where it fails or returns no finite number."""
    given = options.get("metric")
    if given is None:
        return None
    function = user_function(given, "--metric")

    def metric(net: nn.Module, batches: Iterable[Any]) -> float:
        try:
            with evaluating(net):
                value = float(function(net, batches))
        except (KdnaError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the user's code may raise anything
            raise ModelError("KD314", f"--metric {_named(given)}: {cause(error)}") from error
        if not math.isfinite(value):
            raise ModelError("KD314", f"--metric {_named(given)} returned {value}; it must return a finite number")
        return value

    return metric


def with_metric(evaluation: Evaluation, metric: Metric | None, net: nn.Module, batches: Iterable[Any]) -> Evaluation:
    """The evaluation with the value of the user's metric, if there is one."""
    if metric is None:
        return evaluation
    return replace(evaluation, measures={**evaluation.measures, "metric": metric(net, batches)})


def _with(task: Task, pick: Callable[[Any], Any] | None) -> Task:
    own: Any = task
    with_pick: Task = replace(own, pick=pick)
    return with_pick


def _picker(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def pick(returned: Any) -> Any:
        try:
            return function(returned)
        except KdnaError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise ModelError("KD314", f"--outputs {_named(function)}: {cause(error)}") from error

    return pick


def _returned(net: nn.Module, inputs: Tensor) -> Any:
    try:
        return net(inputs)
    except Exception as error:  # the net is user code and may raise anything
        raise ModelError(
            "KD307", f"the forward pass failed on an input of shape {tuple(inputs.shape)}: {cause(error)}"
        ) from error


def _named(given: Any) -> str:
    return given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
