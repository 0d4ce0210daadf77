"""The verb `bank`: several fine-tunes of one net that share their parents, bases and codebooks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.errors import PlanError
from ..core.progress import as_progress
from ..core.specs import Layer, Plan, Progress
from ..inputs.data import Data
from ..inputs.recipe import Recipe, parse_recipe
from ..network.folder import Conversion, Origin, open_folder
from ..network.folder.report import FamilyFit
from ..schemes import SCHEMES, scheme_of
from ..stages.analyze.moments import Moments
from ..stages.analyze.targets import shapes_of
from ..stages.convert.fit import convert as convert_by_plan
from ..stages.convert.variant import fit_adapters, with_tensors_of
from ..stages.plan.budget import budget_of
from ..stages.plan.costs import original_totals
from ..stages.plan.edited import restate
from ..stages.plan.knapsack import solve
from ..stages.plan.together import Variant, bank_database, members_of, require_alike, together, variant_plan
from .cached_moments import moments_of
from .convert import TUNES, FittedNet, completed, require_net
from .heldout_metrics import measure_of
from .job import Job, checked_recipe, open_job, surveyed_net
from .keywords import BankOptions, Targets, check_keywords
from .nets import Model
from .plan_checks import require_goal, require_moments

if TYPE_CHECKING:
    from typing_extensions import Unpack

RECIPE = "variants"  # the default recipe


def bank(
    models: Model | Sequence[Model],
    *,
    recipe: Recipe | str | None = None,
    data: Data | str | Path | Sequence[Any] | None = None,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    checkpoints: Sequence[str | Path] | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[BankOptions],
) -> tuple[Conversion, ...]:
    """Convert copies of several fine-tunes of one net. They share tensors, and each loads alone.

    The shared tensors are fitted on all fine-tunes together; every one has adapters of its own. So the folders that
    `save` writes hold the same shared tensors bit for bit, and `diff` between two of them leaves these out. The layers
    to convert have to be the same; others, such as the classifier, may differ.

    Args:
        models: the fine-tunes: model names or modules, which are copied; or one model for several `checkpoints`.
        recipe: a recipe, its name, or its file. Default: `variants`, and with `shared` that of the folder.
        data: unlabeled images for all: a path or a tensor of inputs. A list or a tuple has one DATA for each model.
        target_params: share of the parameters of all originals together: 0.2, "20%" or "1/5". A shared tensor counts
            once.
        target_bytes: size of one folder's tensors and of what the others add to it, or a share of all originals'.
        checkpoints: a weights file for each model.
        shared: a folder that was converted before, or its Conversion. Its plan and its shared tensors are used as they
            are, and only adapters are fitted, which loses more than a fit together. No target is given then.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: as for `convert`, and `shared`.

    Returns:
        A conversion for each model, in order.

    Raises:
        PlanError: KD501 for a size that cannot be met, KD504 without one, KD506 for one that is invalid or given with
            `shared`, KD512 for nets, a folder or a recipe that cannot share.
        ModelError: KD306 if no layer takes less when it shares.
        KdnaError: what the stages raise; see `kdna explain`.
    """
    check_keywords("bank", options, BankOptions)
    shared = options.pop("shared", None)
    progress, began = as_progress(progress), time.perf_counter()
    nets, places = _per_net(models, checkpoints, data)
    targets = Targets(target_params, target_bytes)
    targets.check()
    base = None if shared is None else _opened(shared, options.get("trust_code", False))
    if base is not None and any(targets):
        raise PlanError("KD506", "the folder of `shared` says how large everything is; leave the size out")
    if base is None and len(nets) < 2:
        raise PlanError("KD512", "one net shares with nothing; give several, or a folder as `shared`")
    recipe = checked_recipe((RECIPE if base is None else parse_recipe(base.recipe)) if recipe is None else recipe)
    _require_plain(recipe)
    jobs = []
    for net, (checkpoint, own) in zip(nets, places, strict=True):
        require_net(net)
        jobs.append(open_job(net, recipe, own, {**options, **checkpoint}, progress))  # type: ignore[typeddict-item]
    if base is None:
        require_alike([job.layers for job in jobs])
        require_goal(jobs[0], *targets)
        found = _joint(jobs, targets, began, progress)
    else:
        plans = [restate(base.plan, surveyed_net(job, job.layers), job.recipe) for job in jobs]
        found = [_to_shared(job, plan, base, began, progress) for job, plan in zip(jobs, plans, strict=True)]
    return tuple(_with_origin(net, job, own) for net, job, own in zip(nets, jobs, found, strict=True))


def _per_net(
    models: Model | Sequence[Model], checkpoints: Sequence[str | Path] | None, data: Any
) -> tuple[list[Model], list[tuple[dict[str, str], Any]]]:
    """Each net with its checkpoint, as an option, and its DATA."""
    nets: list[Any] = [models] if isinstance(models, str | Path | nn.Module) else list(models)
    files = [] if checkpoints is None else [{"checkpoint": str(path)} for path in checkpoints]
    nets = nets * len(files) if len(nets) == 1 and files else nets
    own = list(data) if isinstance(data, list | tuple) else [data] * len(nets)
    for what, given in (("checkpoints", files or nets), ("DATA", own)):
        if len(given) != len(nets):
            raise PlanError("KD512", f"{len(nets)} nets and {len(given)} {what}; give one for each net")
    return nets, list(zip(files or [{} for _ in nets], own, strict=True))


def _opened(shared: str | Path | Conversion, trust_code: bool) -> Conversion:
    """The conversion whose shared tensors are used. Raises PlanError KD512 for one that has none as they are stored."""
    base = shared if isinstance(shared, Conversion) else open_folder(shared, trust_code=trust_code)
    name = "the conversion" if isinstance(shared, Conversion) else str(shared)
    if base.coded is not None:
        why = "is coded: its tensors are rounded and stored as one, so that an update of it leaves nothing out"
        raise PlanError("KD512", f"{name} {why}; give the folder before `kdna code`")
    if base.plan.routes:
        raise PlanError("KD512", f"{name} has a routing, whose tensors are its own; give a folder without")
    if not any(_shared_letters(base.plan, base.plan.layers)):
        raise PlanError("KD512", f"{name} has no family with shared tensors; convert by a scheme that shares")
    return base


def _shared_letters(plan: Plan, layers: Sequence[Layer]) -> list[str]:
    return [letter for family in plan.families for letter in scheme_of(family).layout(shapes_of(family, layers)).shared]


def _require_plain(recipe: Recipe) -> None:
    """Raise PlanError KD512 for a recipe by which a net gets shared tensors of its own, or none."""
    routed = [recipe.routing, *(rule.routing for rule in recipe.rules if rule.routing is not None)]
    keys = {
        "codec": recipe.codec is not None,
        "nested": recipe.nested,
        "fit.progressive": recipe.fit.progressive is not None,
        "routing": any(one.name != "none" for one in routed),
    }
    for key, given in keys.items():
        if given:
            raise PlanError("KD512", f"{key} changes shared tensors for one net alone; leave it out of the recipe")
    schemes = {recipe.scheme, *(rule.scheme for rule in recipe.rules), *(one.scheme for one in recipe.alternatives)}
    if not any(SCHEMES[scheme].shares for scheme in schemes if scheme in SCHEMES):
        named = ", ".join(sorted(scheme for scheme in schemes if scheme is not None))
        raise PlanError("KD512", f"the recipe's scheme, {named}, shares nothing; see `kdna ls schemes`")


def _joint(jobs: Sequence[Job], targets: Targets, began: float, progress: Progress | None) -> list[Conversion]:
    """The conversions with tensors that are fitted on all nets."""
    recipe, variants = jobs[0].recipe, [_variant(job, progress) for job in jobs]
    whole = together(variants)
    database = bank_database(whole, recipe, progress)
    plan = solve(database, budget_of(original_totals(database), recipe, *targets[:2]))
    planned = time.perf_counter()
    converted, fits = convert_by_plan(whole.net.model, plan, whole.moments, sweeps=recipe.fit.sweeps, progress=progress)
    seconds = {"calibrate and plan": planned - began, "fit": time.perf_counter() - planned}
    done = []
    for number, (job, variant) in enumerate(zip(jobs, variants, strict=True)):
        own = variant_plan(plan, number, variant.net, recipe)
        net = with_tensors_of(job.loaded.model, own, converted.get_submodule(str(number)))
        job.notes.append(
            f"net {number + 1} of {len(jobs)} with the same shared tensors; times until the fit are of all"
        )
        fit = FittedNet(own, net, _fits_of(fits, number), seconds)
        done.append(completed(job, fit, variant.moments, measure_of(job), progress))
    return done


def _variant(job: Job, progress: Progress | None) -> Variant:
    moments = moments_of(job, None, progress)
    layers = tuple(
        replace(layer, reason="KD108") if layer.reason is None and layer.name not in moments else layer
        for layer in job.layers
    )
    return Variant(surveyed_net(job, layers), job.assignments, moments)


def _fits_of(fits: Sequence[FamilyFit], number: int) -> tuple[FamilyFit, ...]:
    """How the families of one net were fitted, by its own names."""
    found = []
    for fit in fits:
        errors = {
            members_of((name,), number)[0]: error for name, error in fit.errors.items() if members_of((name,), number)
        }
        if errors:
            found.append(replace(fit, owner=next(iter(errors)), errors=errors))
    return tuple(found)


def _to_shared(job: Job, plan: Plan, base: Conversion, began: float, progress: Progress | None) -> Conversion:
    """The conversion of one net with the shared tensors of a folder."""
    moments: Moments = moments_of(job, None, progress)
    require_moments(plan, moments)
    planned = time.perf_counter()
    net, fits = fit_adapters(job.loaded.model, plan, moments, base.model, progress)
    seconds = {"calibrate and plan": planned - began, "fit": time.perf_counter() - planned}
    job.notes.append("the shared tensors are those of another folder; only adapters were fitted")
    return completed(job, FittedNet(plan, net, fits, seconds), moments, measure_of(job), progress)


def _with_origin(model: Model, job: Job, conversion: Conversion) -> Conversion:
    if job.recipe.finetune is not None:
        conversion = replace(conversion, report=replace(conversion.report, notes=(*conversion.report.notes, TUNES)))
    return replace(conversion, origin=Origin(module=job.loaded.model)) if isinstance(model, nn.Module) else conversion
