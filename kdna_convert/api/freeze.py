"""The verb `freeze`: a routed net becomes an ordinary one, each router replaced by its mean over images."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import DataError, FolderError, PlanError
from ..core.filesize import metadata
from ..core.progress import as_progress
from ..core.specs import Divergence, Plan, Progress
from ..inputs.data import Data, batches
from ..inputs.models import example_input
from ..inputs.recipe import parse_recipe
from ..network.derive import fold
from ..network.folder import Conversion, open_folder, original_of, uncoded
from ..network.folder.report import FreezeReport
from ..network.inference import evaluating
from ..network.totals import totals
from ..routing import detach, mean_kernels
from ..stages.evaluate.accuracy import divergence_from
from .job import calibration_split, device_of_name, images_of


def freeze(
    folder: str | Path | Conversion,
    *,
    data: Data | str | Path | None = None,
    class_map: str | Path | None = None,
    device: str = "auto",
    progress: Progress | bool | None = None,
) -> tuple[Conversion, FreezeReport]:
    """The folder's net without its routing: every kernel an ordinary one, routed layers at their mean over images.

    The images are those that the recipe calibrates on, and those that it holds back measure what it cost. Raises
    PlanError KD503 for a net without routing, DataError KD401 without images, NumericsError KD702.
    """
    progress = as_progress(progress)
    began = time.perf_counter()
    before = uncoded(folder if isinstance(folder, Conversion) else open_folder(folder))
    if not before.plan.routes:
        raise PlanError("KD503", "the net has no routing to freeze; `kdna export --to merged` folds it as it is")
    if data is None:
        raise DataError("KD401", "a mean is taken over images; pass --data")
    recipe = parse_recipe(before.recipe)
    seen, place = images_of(data, before.data, class_map, None, recipe.seed), device_of_name(device)
    fitted, held = calibration_split(seen, recipe.calibration.images, recipe.calibration.heldout, recipe.seed)
    inputs = (images.to(place) for images, _ in batches(fitted, recipe.calibration.batch))
    if progress is not None:
        progress("freeze: mean of the routing", 0, 0)
    net = frozen(copy.deepcopy(before.model).to(place), before.plan, inputs).cpu()
    heldout = [images for images, _ in batches(held, recipe.calibration.batch)] if len(held) else []
    from_routed, from_original, routed = _measured(before, net, heldout)
    spent = round(time.perf_counter() - began, 2)
    outcome = FreezeReport(from_routed, from_original, routed, len(fitted), spent)
    plan = _plan(before.plan, net, before)
    report = replace(before.report, freeze=outcome)
    if outcome.from_original is not None:
        report = report.with_stage("freeze", outcome.from_original)
    return replace(before, model=net.eval(), plan=plan, report=report), outcome


def frozen(model: nn.Module, plan: Plan, inputs: Iterable[Tensor]) -> nn.Module:
    """The model, in place, with ordinary weights only: routed layers have their mean kernel over these batches."""
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


def _measured(
    before: Conversion, net: nn.Module, heldout: list[Tensor]
) -> tuple[Divergence | None, Divergence | None, Divergence | None]:
    if not heldout:
        return None, None, None
    from_routed = divergence_from(before.model, heldout)(net)
    try:
        measure = divergence_from(original_of(before.plan.model).model, heldout)
    except FolderError:
        return from_routed, None, None
    return from_routed, measure(net), measure(before.model)


def _plan(plan: Plan, net: nn.Module, before: Conversion) -> Plan:
    """Nothing is shared and nothing routed any more."""
    changed = {name for family in plan.families for name in family.members}
    changed |= {name for route in plan.routes for name in route.members}
    layers = tuple(replace(layer, reason="KD117") if layer.name in changed else layer for layer in plan.layers)
    planned = totals(net, example_input(before.data), metadata(plan.model, before.recipe))
    return Plan(plan.model, (), layers, plan.original, planned, seed=plan.seed)
