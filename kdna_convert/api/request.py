"""The request of a run, checked as far as possible before any work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..core.errors import DataError
from ..core.specs import Progress
from ..inputs.data import as_images
from ..inputs.recipe import Recipe, parse_share
from ..network.totals import original_bytes
from ..stages.plan.files import request_fingerprint
from .code import require_size
from .convert import require_net, size_of
from .export import require_exportable
from .job import checked_recipe
from .keywords import NetOptions, PlanLimits, RunOptions, Targets
from .net_task import metric_of, task_of
from .nets import check_labels, checkpoint_of, load_any, sized
from .run_limits import limits_mark, limits_of, require_limits
from .splits import digest_of, images_of


@dataclass(frozen=True)
class RunRequest:
    """The arguments of a run. `recipe` is the one for the requested size, `mark` the hash of everything that matters.

    `shares` says whether the recipe's `sharing` is used; None if it has none. `moments` and `database` are where the
    conversion keeps them, which changes nothing in the result.
    """

    model: str | nn.Module
    recipe: Recipe
    data: Any
    params: float | None
    size: float | str | None
    options: NetOptions
    limits: PlanLimits
    shares: bool | None
    mark: str
    progress: Progress | None
    moments: str | Path | None = None
    database: str | Path | None = None


def request_of(
    model: Any,
    recipe: Recipe | str,
    data: Any,
    targets: tuple[float | str | None, float | str | None],
    options: RunOptions,
    progress: Progress | None,
) -> RunRequest:
    """The checked request; `targets` are shares of the parameters and the size of the file.

    Raises:
        ModelError: KD302 for a folder.
        PlanError: KD501, KD504, KD506 for an invalid size or limit, or two.
        DataError: KD401 for a recipe that fine-tunes, without images; KD402 for other classes.
    """
    data = data if data is None or isinstance(data, str | Path) else as_images(data)
    require_net(model)
    every, limits = Targets(*targets, latency=options.get("target_latency")), limits_of(options)
    every.check()
    recipe, (share, target_bytes) = checked_recipe(recipe), targets
    params = parse_share(share) if isinstance(share, str) else share
    loaded = sized(load_any(model, checkpoint_of(options), options.get("inputs")), data, options)
    size, whole = size_of(recipe, target_bytes), original_bytes(loaded.model, loaded.dtypes)
    final = recipe.at_size(size, whole)
    if final.codec is not None:
        require_size(final.codec, size, whole)
    require_limits(final, every, limits)
    if final.finetune is not None and data is None:
        raise DataError("KD401", "the recipe fine-tunes, which takes images; pass --data")
    images = None if data is None else images_of(data, loaded.data, options.get("class_map"), None, recipe.seed)
    metric_of(options)  # a file that cannot be loaded is refused now
    if images is not None:
        task = task_of(loaded.model, loaded.data, options, recipe.task).task
        if final.finetune is not None and final.finetune.label_weight:
            check_labels(images, loaded.model, loaded.data, task)
    if final.export is not None:
        require_exportable(final.export, data)
    exclude = {"export"} if recipe.export is None else set()  # as in runs before there was such a key
    parts = [recipe.model_dump(mode="json", exclude=exclude), loaded.ref.sha256, digest_of(images, 2), params, size]
    named = data if isinstance(data, str | Path) else None
    name = loaded.ref.sha256 if isinstance(model, nn.Module) else str(model)
    parts += [request_fingerprint(recipe, name, named, options).whole, str(options.get("class_map"))]
    if own := limits_mark(limits):  # none in runs without limits
        parts.append(own)
    mark = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    shares = None if recipe.sharing is None else final.scheme != recipe.scheme
    net = model if isinstance(model, nn.Module) else name
    kept = options.get("moments"), options.get("database")
    return RunRequest(net, final, data, params, size, net_options(options), limits, shares, mark, progress, *kept)


def net_options(options: RunOptions) -> NetOptions:
    """The options of a run that its stages take."""
    kept: Any = {name: value for name, value in options.items() if name in NetOptions.__annotations__}
    own: NetOptions = kept
    return own
