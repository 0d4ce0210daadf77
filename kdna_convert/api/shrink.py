"""The verb `shrink`: cut a converted net to a smaller size. Families keep their leading directions."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.choices import Database
from ..core.errors import PlanError
from ..core.progress import as_progress
from ..core.specs import Plan, Progress
from ..inputs.data import Data
from ..inputs.recipe import Recipe, parse_recipe
from ..network.derive import fold
from ..network.folder import Conversion, uncoded
from ..network.folder.report import ShrinkReport, StepResult
from ..stages.analyze.collect import Sampling, collect
from ..stages.analyze.data_free import data_free
from ..stages.analyze.moments import Moments
from ..stages.convert.cut import choices, cut, cuttable, nested, order_families, with_errors
from ..stages.convert.fit import SWEEPS, Measure
from ..stages.plan.budget import PlanBudget, budget_of
from ..stages.plan.costs import original_totals
from ..stages.plan.knapsack import solve
from ..stages.repair.net_pair import NetPair, walk_memory
from ..stages.repair.run_steps import run_steps
from ..tasks import CLASSIFY, Task
from .keywords import StageOptions, check_keywords
from .net_task import conversion_task
from .nets import device_of_name, known_original, opened, require_inputs
from .repair import judging, mixtures
from .splits import ImageSplit, split_images

if TYPE_CHECKING:
    from typing_extensions import Unpack

NO_IMAGES = (
    "no images: what is cut was fitted again on synthetic noise, or not at all, which costs accuracy; pass --data"
)
NOT_NESTED = "the order of what is cut comes from that noise too: the recipe did not say `nested: true`"


def shrink(
    folder: str | Path | Conversion,
    *,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    target_macs: float | str | None = None,
    data: Data | str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[StageOptions],
) -> Conversion:
    """Cut a conversion to a smaller size, without converting the original again.

    Every family keeps its leading directions, as many as the knapsack gives it, and is fitted again to the kernels that
    its members had. With images this is a joint fit, followed by the recipe's repair. Without images, only the
    adapters are solved, on synthetic noise. A folder that was converted with `nested: true` keeps its own order.

    Args:
        folder: a converted folder, or a conversion, which is not changed.
        target_params: share of the original's parameters: 0.5, "50%" or "1/2".
        target_bytes: size of the whole file ("1.2MB"), or a share of the original's ("1/20").
        target_macs: share of the original's multiply-adds, with converted layers run factored.
        data: unlabeled images: a path, a tensor of inputs, or batches.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: class_map, a file of class names, one per line, in the order of the net's outputs; device: auto, cpu,
            cuda, cuda:1 or mps; model and trust_code, as for `finetune`; task and outputs, as for `convert`.

    Raises:
        PlanError: KD501 for a size that cannot be met, KD504 without a budget, KD506 for an invalid size,
            KD507 if no family can be cut, KD509 if the net is not larger than the budget.
        FolderError: KD606 for a trained gate.
        DataError: KD401 without images.
    """
    check_keywords("shrink", options, StageOptions)
    progress = as_progress(progress)
    began = time.perf_counter()
    before = uncoded(opened(folder, options))
    recipe = parse_recipe(before.recipe)
    net = fold(copy.deepcopy(before.model))
    database = choices(before.plan, net, recipe)
    budget = _budget(before.plan, database, recipe, target_params, target_bytes, target_macs)
    solve(database, budget)  # a budget that cannot be met is refused before the images are read
    settings = recipe.calibration
    split = None if data is None else split_images(data, before.data, options.get("class_map"), settings, recipe.seed)
    original: nn.Module | None = None
    task: Task = CLASSIFY
    if split is not None:
        original = known_original(before)
        require_inputs(net, split.whole, before.model, original)
        task = conversion_task(before, options)
    measure = None if split is None else split.divergence_from(original, task)
    place = device_of_name(options.get("device", "auto"))
    moments = _moments(before, net, database, recipe, split, place, progress, task)
    kept = before.plan.nested if split is None else {}
    ordered = order_families(before.model, net, before.plan, database, moments, kept=kept)
    curves = {owner: found.errors for owner, found in ordered.items()} | kept
    plan = replace(solve(with_errors(database, curves), budget), seed=before.plan.seed)
    sweeps = 0 if split is None else recipe.fit.sweeps or SWEEPS
    became = cut(before.model, net, plan, ordered, moments, sweeps=sweeps, kept=kept)
    plan = nested(plan, became if split is not None else kept)
    repaired = _repair(net, plan, recipe, split, original, measure, task, progress)
    divergence = None if measure is None else measure(net)
    done = _report(before.plan, plan, split, repaired)
    report = replace(before.report, families=None, repair=None, max_drop=None, divergence=None, shrink=done)
    report = report if divergence is None else report.with_stage("shrink", divergence)
    report = replace(report, shrink=replace(done, seconds=round(time.perf_counter() - began, 2)))
    return replace(before, model=net.cpu().eval(), plan=plan, report=report)


def _budget(plan: Plan, database: Database, recipe: Recipe, params: Any, size: Any, macs: Any) -> PlanBudget:
    budget = budget_of(original_totals(database), recipe.model_copy(update={"budget": None}), params, size, macs)
    if budget is None:
        raise PlanError("KD504", "no budget was given; pass --target-params 0.35, say")
    now = getattr(plan.planned, budget.kind)
    if budget.amount >= now:
        raise PlanError("KD509", f"it has no more than {now:,} {budget.kind}, and {budget.amount:,} are asked for")
    return budget


def _moments(
    before: Conversion,
    net: nn.Module,
    database: Database,
    recipe: Recipe,
    split: ImageSplit | None,
    device: torch.device,
    progress: Progress | None,
    task: Task,
) -> Moments:
    """The moments of the inputs of the converted net's layers."""
    members = {name for choice in database.choices if cuttable(choice) for name in choice.family.members}
    layers = [layer for layer in database.layers if layer.name in members]
    if split is None:
        size = before.data.input_size
        images = recipe.calibration.images
        return data_free(net, layers, size, images=images, seed=recipe.seed, device=device, progress=progress)
    sampling, inputs = Sampling(images=len(split.calibration), seed=recipe.seed), split.calibration_inputs()
    return collect(net, layers, inputs, sampling=sampling, task=task, device=device, progress=progress)


def _repair(
    net: nn.Module,
    plan: Plan,
    recipe: Recipe,
    split: ImageSplit | None,
    original: nn.Module | None,
    measure: Measure | None,
    task: Task,
    progress: Progress | None,
) -> tuple[StepResult, ...]:
    """Run the recipe's repair in place, if it has one, the original is available and images are held out."""
    if split is None or original is None or measure is None or not recipe.repair:
        return ()
    mixed = mixtures(split.calibration, split.batch, recipe.seed)
    nets = NetPair(original, net, plan.layers, mixed, walk_memory(recipe.calibration.memory))
    nets.apart = task.apart(original)
    judge = judging(original, split.heldout, split.batch, recipe.seed, task)
    steps = [(step.name, step.options) for step in recipe.repair]
    return run_steps(nets, steps, measure, judge=judge, progress=progress)


def _report(before: Plan, after: Plan, split: ImageSplit | None, repaired: tuple[StepResult, ...]) -> ShrinkReport:
    notes = () if split is not None else (NO_IMAGES,) if before.nested else (NO_IMAGES, NOT_NESTED)
    images, skipped = (0, ()) if split is None else (len(split.calibration), tuple(split.calibration.skipped))
    return ShrinkReport(before.planned.params, images, skipped, repaired, notes, after.planned.params)
