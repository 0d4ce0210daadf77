"""The answers of a converted net and its original, compared on the user's images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..core.disagreement import Disagreement, Example
from ..core.filesize import metadata
from ..core.specs import Progress
from ..inputs.data import Data, as_images, read_class_map
from ..inputs.data.class_names import class_names
from ..inputs.models import carried_cfg, override
from ..inputs.recipe import parse_recipe
from ..network.folder import Conversion
from ..stages.evaluate.compare_answers import AnswerComparison, compare_answers
from .measured_images import MeasuredImages, measured_images

BATCH = 100


def answer_comparison(
    conversion: Conversion,
    original: nn.Module,
    data: Data | str | Path,
    options: Mapping[str, Any],
    *,
    limit: int | None,
    seed: int,
    pictures: bool,
    progress: Progress | None,
) -> AnswerComparison:
    """Both nets on the same images, with the names of classes and files. The arguments are those of `report`."""
    inputs, named = options.get("inputs"), parse_recipe(conversion.recipe).task
    config = override(conversion.data, **inputs) if inputs else conversion.data
    opened = measured_images(
        conversion.model,
        original,
        config,
        data if isinstance(data, str | Path) else as_images(data),
        {**options, "task": options.get("task") or named},
        limit=limit,
        seed=seed,
        batch=BATCH,
    )
    compared = compare_answers(
        conversion.model,
        original,
        opened.stream,
        task=opened.task,
        config=config,
        pictures=pictures,
        metadata=metadata(conversion.plan.model, conversion.recipe),
        device=opened.device,
        progress=progress,
    )
    converted = replace(compared.converted, bytes=conversion.plan.planned.bytes, skipped=opened.skipped)
    classes = read_class_map(options["class_map"]) if options.get("class_map") else opened.images.classes
    names = class_names(classes, carried_cfg(conversion.model).get("label_names"))
    own = replace(named_inputs(compared.disagreement, opened), names=names, skipped=opened.skipped)
    return replace(compared, converted=converted, disagreement=own)


def named_inputs(disagreement: Disagreement, opened: MeasuredImages) -> Disagreement:
    """The same, each example with the name of its input."""
    read = opened.images.read

    def named(example: Example) -> Example:
        return replace(example, name=read[example.place])

    typical = disagreement.typical
    return replace(
        disagreement,
        examples=tuple(map(named, disagreement.examples)),
        typical=None if typical is None else named(typical),
    )
