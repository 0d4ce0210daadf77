"""The verb `evaluate`: accuracy on labeled images, and agreement with the original net."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..core.filesize import metadata
from ..core.measurements import Evaluation
from ..core.progress import as_progress
from ..core.specs import Progress
from ..inputs.data import Data, as_images, batches
from ..inputs.models import override
from ..inputs.recipe import parse_recipe
from ..network.folder import Conversion
from ..stages.evaluate.accuracy import evaluate as evaluate_net
from .keywords import EvaluateOptions, check_keywords
from .measured_images import measured_images
from .net_task import metric_of, with_metric
from .nets import Model, checkpoint_of, conversion_of, load_any, original_from, sized

if TYPE_CHECKING:
    from typing_extensions import Unpack


def evaluate(
    net: Model | Conversion,
    /,
    *,
    data: Data | str | Path,
    limit: int | None = None,
    seed: int = 0,
    batch: int = 100,
    progress: Progress | bool | None = None,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Measure a net by its task: accuracy on labeled images; for a conversion also how far it is from the original.

    Args:
        net: a model name, a converted folder, a conversion, or a module.
        data: images, labeled for accuracy: a path, a tensor, or batches.
        limit: use only this number of images, drawn with `seed`.
        seed: seed of that draw.
        batch: images per batch.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: checkpoint (for a conversion, the original's weights), inputs, class_map and device, as for
            `convert`; model and trust_code, as for `finetune`; task, outputs and metric, as for `convert`.

    Returns:
        The measured shares and costs. What could not be measured is None: agreement without the original's weights,
        accuracy without labels.

    Raises:
        DataError: KD401 without images, KD402 if the labels are not of the net's task or classes.
        ModelError: KD308 for outputs of another task, KD313 if several tasks fit, KD314 for a metric that fails.
    """
    check_keywords("evaluate", options, EvaluateOptions)
    progress = as_progress(progress)
    conversion = conversion_of(net, options.get("trust_code", False), options.get("model"))
    checkpoint, inputs = checkpoint_of(options), options.get("inputs")
    data = data if isinstance(data, str | Path) else as_images(data)
    if conversion is None:
        loaded = sized(load_any(cast("Model", net), checkpoint, inputs), data, options)
        model, config, original, about = loaded.model, loaded.data, None, None
    else:
        model, config = conversion.model, override(conversion.data, **inputs) if inputs else conversion.data
        about = metadata(conversion.plan.model, conversion.recipe)
        original = original_from(conversion, checkpoint)
    named, metric = None if conversion is None else parse_recipe(conversion.recipe).task, metric_of(options)
    how = {**options, "task": options.get("task") or named}
    opened = measured_images(model, original, config, data, how, limit=limit, seed=seed, batch=batch)
    evaluation = evaluate_net(
        model,
        opened.stream,
        original=original,
        task=opened.task,
        metadata=about,
        device=opened.device,
        progress=progress,
    )
    evaluation = with_metric(evaluation, metric, model, batches(opened.images, batch))
    if conversion is not None and conversion.coded is not None:
        evaluation = replace(evaluation, bytes=conversion.plan.planned.bytes)
    return replace(evaluation, skipped=opened.skipped)
