"""The verb `freeze`: turn a routed net into an ordinary one. Each router is replaced by its mean over images."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import DataError, PlanError
from ..core.filesize import metadata
from ..core.progress import as_progress
from ..core.specs import Plan, Progress
from ..inputs.data import Data, batches
from ..inputs.models import example_input
from ..inputs.recipe import parse_recipe
from ..network.derive import fold
from ..network.folder import Conversion, uncoded
from ..network.folder.report import FreezeReport
from ..network.inference import evaluating
from ..network.totals import totals
from ..routing import detach, mean_kernels
from ..tasks import Task
from .keywords import StageOptions, check_keywords
from .net_task import conversion_task
from .nets import device_of_name, known_original, opened, require_inputs
from .splits import ImageSplit, split_images

if TYPE_CHECKING:
    from typing_extensions import Unpack


def freeze(
    folder: str | Path | Conversion,
    *,
    data: Data | str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[StageOptions],
) -> tuple[Conversion, FreezeReport]:
    """Replace the routing of a net by its mean over images: every kernel becomes an ordinary one.

    Args:
        folder: a converted folder, or a conversion, whose net has a routing.
        data: unlabeled images: a path, a tensor of inputs, or batches. The recipe says how many the mean is taken
            over, and how many are held out to measure the result.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: class_map, device, model, trust_code, task and outputs, as for `shrink`.

    Returns:
        The frozen conversion, and its divergences from the routed net and from the original.

    Raises:
        PlanError: KD503 for a net without routing.
        DataError: KD401 without images.
        NumericsError: KD702.
    """
    check_keywords("freeze", options, StageOptions)
    progress = as_progress(progress)
    began = time.perf_counter()
    before = uncoded(opened(folder, options))
    if not before.plan.routes:
        raise PlanError("KD503", "the net has no routing to freeze; `kdna export --to merged` folds it as it is")
    if data is None:
        raise DataError("KD401", "a mean is taken over images; pass --data")
    recipe = parse_recipe(before.recipe)
    images = split_images(data, before.data, options.get("class_map"), recipe.calibration, recipe.seed)
    require_inputs(before.model, images.whole)
    place = device_of_name(options.get("device", "auto"))
    inputs = (inputs.to(place) for inputs, _ in batches(images.calibration, images.batch))
    if progress is not None:
        progress("freeze: mean of the routing", 0, 0)
    net = frozen(copy.deepcopy(before.model).to(place), before.plan, inputs).cpu()
    outcome = _measured(before, net, images, conversion_task(before, options))
    outcome = replace(outcome, seconds=round(time.perf_counter() - began, 2))
    plan = _plan(before.plan, net, before)
    report = replace(before.report, freeze=outcome)
    if outcome.from_original is not None:
        report = report.with_stage("freeze", outcome.from_original)
    return replace(before, model=net.eval(), plan=plan, report=report), outcome


def frozen(model: nn.Module, plan: Plan, inputs: Iterable[Tensor]) -> nn.Module:
    """Give the model ordinary weights, in place. Routed layers get their mean kernel over these batches."""
    with evaluating(model):
        means = mean_kernels(model, plan.routes, inputs)
    for route in plan.routes:
        for name in route.members:
            detach(model.get_submodule(name))
    fold(model)
    with torch.no_grad():
        for name, mean in means.items():
            layer: Any = model.get_submodule(name)
            layer.weight.copy_(mean.kernel)
            if layer.bias is not None:
                layer.bias.mul_(mean.bias.to(layer.bias))
    return model


def _measured(before: Conversion, net: nn.Module, images: ImageSplit, task: Task) -> FreezeReport:
    """The divergences that can be measured. The original is loaded only if images are held out."""
    count = len(images.calibration)
    from_routed = images.divergence_from(before.model, task)
    if from_routed is None:
        return FreezeReport(None, None, None, count, 0.0)
    divergence = from_routed(net)
    original = known_original(before)
    if original is not None:
        require_inputs(original, images.whole)
    from_original = images.divergence_from(original, task)
    if from_original is None:
        return FreezeReport(divergence, None, None, count, 0.0)
    return FreezeReport(divergence, from_original(net), from_original(before.model), count, 0.0)


def _plan(plan: Plan, net: nn.Module, before: Conversion) -> Plan:
    """The plan without families and routes."""
    changed = {name for family in plan.families for name in family.members}
    changed |= {name for route in plan.routes for name in route.members}
    layers = tuple(replace(layer, reason="KD117") if layer.name in changed else layer for layer in plan.layers)
    planned = totals(net, example_input(before.data), metadata(plan.model, before.recipe))
    return Plan(plan.model, (), layers, plan.original, planned, seed=plan.seed)
