"""What `kdna explore` steers: the database of a net, made once, and how a plan from it is converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.choices import Database
from ..core.errors import FolderError, ModelError, PlanError
from ..core.progress import as_progress
from ..core.specs import ModelRef, Plan, Progress
from ..inputs.models import example_input
from ..inputs.recipe import Recipe, parse_recipe
from ..network.folder import original_of
from ..stages.latency.latencies import with_latencies
from ..stages.plan.budget import PlanBudget, budget_of
from ..stages.plan.costs import original_totals
from ..stages.plan.knapsack import solve
from .cached_database import database_of, require_families
from .job import Job, open_job
from .keywords import CurveOptions, ExploreOptions, check_keywords
from .latency import clock_of
from .nets import checkpoint_of, opened

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT = "balanced"
# What a conversion takes from the options; the rest is for the plan.
PASSED = (
    *("checkpoint", "checkpoint_key", "checkpoint_prefix", "inputs", "class_map", "task", "outputs", "device"),
    *("data_free", "moments"),
)


@dataclass(frozen=True)
class Exploration:
    """What a page steers.

    Attributes:
        model: The MODEL.
        recipe: The recipe of the database.
        database: What plans are solved from.
        start: The budget to begin with.
        repaired: Whether conversions by the recipe are repaired.
        expects: Whether agreement and KL divergence are expected: of classifiers, with images.
        folder: The plan of the converted folder that was given, None for a MODEL.
        arguments: Those of api.convert.convert, without recipe and plan.
        notes: What the user should know of the net and the images.
    """

    model: str
    recipe: Recipe
    database: Database
    start: PlanBudget
    repaired: bool
    expects: bool
    folder: Plan | None
    arguments: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A MODEL; of a converted folder the net that it was made from, its recipe and its plan."""

    model: str
    options: ExploreOptions
    recipe: Recipe | str
    ref: ModelRef | None = None
    plan: Plan | None = None


def explore(
    model: str,
    *,
    recipe: Recipe | str | None = None,
    overrides: Sequence[str] = (),
    data: str | None = None,
    latency: bool = False,
    progress: Progress | bool | None = None,
    **options: Unpack[ExploreOptions],
) -> Exploration:
    """Make or read the database of a net.

    Args:
        model: a model name, or a converted folder, whose original, recipe and plan are then the start.
        recipe: a recipe, its name, or its file. Default: the folder's, else balanced.
        overrides: of the folder's recipe, as `--set`.
        data: unlabeled images.
        latency: also measure the times of the layers, for budgets of time.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: as for `plan`; trust_code lets a folder run the code that it names.

    Raises:
        ModelError: KD306 if the recipe has nothing to convert.
        FolderError: KD607, KD611, as `open_folder` and `original_of`.
        PlanError: KD505 as `plan`.
    """
    check_keywords("explore", options, ExploreOptions)
    progress = as_progress(progress)
    source = _source(model, recipe, overrides, options)
    clock = clock_of(options) if latency else None
    own: CurveOptions = {name: value for name, value in source.options.items() if name in CurveOptions.__annotations__}  # type: ignore[assignment]
    job = open_job(source.model, source.recipe, data, own, progress)
    _require_same(job, source)
    require_families(job)
    database = database_of(job, source.model, data, own, progress)
    if not database.choices:
        raise ModelError("KD306", "no layer of this model can be made smaller by this recipe")
    if clock is not None:
        net, example = job.loaded.model.cpu().eval(), example_input(job.loaded.data)
        database = with_latencies(database, net, example, clock, progress)
    return Exploration(
        model=source.model,
        recipe=job.recipe,
        database=database,
        start=_start(database, job.recipe, source.plan),
        repaired=bool(job.recipe.repair),
        expects=job.calibration is not None and job.task.name == "classify",
        folder=source.plan,
        arguments={"model": source.model, "data": data, **{key: own[key] for key in PASSED if key in own}},  # type: ignore[literal-required]
        notes=tuple(job.notes),
    )


def _source(model: str, recipe: Recipe | str | None, overrides: Sequence[str], options: ExploreOptions) -> _Source:
    """What MODEL is. Of a folder the original is built, where the folder may have it built, and is checked."""
    if not Path(model).is_dir():
        return _Source(model, options, recipe or DEFAULT)
    conversion = opened(model, {"trust_code": options.get("trust_code", False)})
    loaded = original_of(conversion, checkpoint_of(options))
    ref = conversion.plan.model
    given = {"checkpoint": options.get("checkpoint") or ref.checkpoint}
    inputs = {name: value for name, value in asdict(loaded.data).items() if value is not None}
    inputs |= {name: value for name, value in asdict(conversion.data).items() if value is not None}
    inputs |= dict(options.get("inputs") or {})
    own = recipe or parse_recipe(conversion.recipe, overrides, name=f"{model}/recipe.yaml")
    return _Source(ref.name, {**options, **given, "inputs": inputs}, own, ref, conversion.plan)  # type: ignore[typeddict-item]


def _require_same(job: Job, source: _Source) -> None:
    """Raise FolderError KD607 if the net is not the one that the folder was made from."""
    if source.ref is not None and job.loaded.ref.sha256 != source.ref.sha256:
        way_out = "pass --checkpoint FILE with the original's weights, and --checkpoint-key for those that are meant"
        raise FolderError("KD607", f"{source.ref.name} has other weights than the folder's original; {way_out}")


def _start(database: Database, recipe: Recipe, plan: Plan | None) -> PlanBudget:
    """The size of the folder's plan, else the recipe's budget or sizes, else half of the parameters."""
    if plan is not None and plan.families:
        return PlanBudget("params", plan.planned.params)
    with suppress(PlanError):
        budget = budget_of(original_totals(database), recipe)
        return budget or PlanBudget("params", solve(database, None).planned.params)
    return PlanBudget("params", database.params // 2)
