"""The database that plans of a job are solved from: read from its file, or built and written there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.choices import Database
from ..core.errors import ModelError
from ..core.fingerprint import Fingerprint
from ..core.specs import Family, Layer, Progress
from ..inputs.recipe import alternatives
from ..schemes import SCHEMES
from ..stages.analyze.groups import Clustering
from ..stages.analyze.groups import analyze as compare_layers
from ..stages.analyze.moments import Moments
from ..stages.plan.database import build_database
from ..stages.plan.families import Clusters, form_families
from ..stages.plan.files import read_database, request_fingerprint, write_database
from ..stages.plan.routes import form_routes
from .cached_moments import moments_of
from .job import Job, surveyed_net
from .keywords import CurveOptions
from .nets import Model
from .splits import digest_of


def database_of(
    job: Job,
    model: Model,
    data: Any,
    options: CurveOptions,
    progress: Progress | None,
    moments: Moments | None = None,
) -> Database:
    """Read the database from the file in the options, or build it and write it there.

    Raises:
        PlanError: KD505 for a file of another model, recipe, data or settings.
    """
    database = known_database(job, model, data, options)
    if database is not None:
        return database
    path, made_from = options.get("database"), _made_from(job, model, data, options)
    moments = moments_of(job, options.get("moments"), progress) if moments is None else moments
    built = replace(_built(job, moments, made_from.whole, progress), parts=dict(made_from.parts))
    if path is not None:
        write_database(path, built)
    return built


def known_database(job: Job, model: Model, data: Any, options: CurveOptions) -> Database | None:
    """The database in the file in the options; None if there is no file. Raises PlanError KD505."""
    path = options.get("database")
    return None if path is None else read_database(path, _made_from(job, model, data, options))


def _made_from(job: Job, model: Model, data: Any, options: CurveOptions) -> Fingerprint:
    """The fingerprint of what the database depends on. A model or data in memory is named by its digest."""
    named = model if isinstance(model, str | Path) else job.loaded.ref.sha256
    on_disk = data is None or isinstance(data, str | Path)
    images = data if on_disk else digest_of(job.calibration, job.recipe.calibration.batch)
    return request_fingerprint(job.recipe, named, images, options)


def require_families(job: Job) -> None:
    """Raise ModelError KD306 before the calibration if the recipe has nothing to convert."""
    if not _families(job, job.layers, None)[1]:
        raise ModelError("KD306", "the recipe keeps every layer dense, so that there is no plan to choose")


def _built(job: Job, moments: Moments, mark: str, progress: Progress | None) -> Database:
    layers = tuple(
        replace(layer, reason="KD108") if layer.reason is None and layer.name not in moments else layer
        for layer in job.layers
    )
    layers, families, own = _families(job, layers, _clusters(job, moments))
    routes, left = form_routes(job.loaded.model, job.layers, job.assignments)
    built = build_database(
        surveyed_net(job, layers),
        families,
        job.recipe,
        moments,
        divisible=_divisible(job, families[:own]),
        routes=routes,
        fingerprint=mark,
        progress=progress,
    )
    return replace(built, unrouted=left)


def _families(
    job: Job, layers: Sequence[Layer], clusters: Clusters | None
) -> tuple[tuple[Layer, ...], list[Family], int]:
    """The layers, the families (first those of the recipe's schemes, then of its alternatives), and how many are first.

    If an alternative shares across several families of the recipe, its family is added, and also its part in each of
    these. A layer keeps its reason only if it is in no family. Raises ModelError KD306 if there is no family.
    """
    reasons = {layer.name: layer.reason for layer in layers}
    formed = []
    ways = (job.assignments, *alternatives(job.recipe, job.assignments))
    for way in ways:
        assigned = [replace(one, reason=one.reason or reasons[one.layer]) for one in way]
        try:
            formed.append(form_families(layers, assigned, clusters))
        except ModelError as error:
            if error.code != "KD306" or (way is ways[-1] and not any(families for _, families in formed)):
                raise
            formed.append((tuple(layers), ()))
    (own, first), *others = formed
    families = [
        *first,
        *(part for _, wider in others for family in wider for part in (family, *_within(family, first))),
    ]
    inside = {name for family in families for name in family.members}
    return tuple(replace(one, reason=None) if one.name in inside else one for one in own), families, len(first)


def _within(family: Family, others: Sequence[Family]) -> list[Family]:
    """The parts of a family inside each of the others, without empty and whole parts."""
    parts = [tuple(name for name in family.members if name in other.members) for other in others]
    return [replace(family, members=part) for part in parts if 0 < len(part) < len(family.members)]


def _divisible(job: Job, families: Sequence[Family]) -> set[int]:
    """The indices of families of 1x1 layers that no rule of the recipe fixes.

    Without spatial kernels all that such layers can share is the space of their inputs; see docs/decisions/0006.
    """
    if job.recipe.families.by != "gain":
        return set()
    layers = {layer.name: layer for layer in job.layers}
    held = {assignment.layer for assignment in job.assignments if assignment.family is not None}
    return {
        place
        for place, family in enumerate(families)
        if len(family.members) > 1
        and not held & set(family.members)
        and layers[family.members[0]].taps == 1
        and _leaves_a_choice(family.members[0], job)
    }


def _leaves_a_choice(name: str, job: Job) -> bool:
    """Whether the plan chooses the size of the layer, and its scheme is useful for single layers."""
    assignment = next(one for one in job.assignments if one.layer == name)
    scheme = SCHEMES[assignment.scheme or "cp"]
    return scheme.smallest > 0 and scheme.size not in assignment.options


def _clusters(job: Job, moments: Moments) -> Clusters | None:
    settings = job.recipe.families
    if settings.by != "cluster":
        return None

    def labels(members: Sequence[Layer]) -> Sequence[int]:
        comparison = compare_layers(
            job.loaded.model,
            members,
            moments,
            group=lambda layer: 0,
            clustering=Clustering(settings.metric, settings.linkage, settings.threshold, settings.count),
            metrics=(settings.metric,),
        )
        return comparison.groups[0].clusters

    return labels
