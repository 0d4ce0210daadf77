"""The verb `benchmark`: the milliseconds of a net, and of a conversion in each form that it can run in."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ..core.errors import FolderError
from ..core.filesize import metadata
from ..core.progress import as_progress
from ..core.specs import Progress
from ..inputs.models import example_input, override
from ..network.derive import factor, fold
from ..network.folder import Conversion
from ..stages.evaluate.timing import Timing
from ..stages.evaluate.timing import benchmark as time_nets
from .keywords import BenchOptions, check_keywords
from .latency import clock_of
from .nets import Model, checkpoint_of, conversion_of, device_of_name, load_any, original_from

if TYPE_CHECKING:
    from typing_extensions import Unpack


def benchmark(
    net: Model | Conversion,
    /,
    *,
    batch: int = 1,
    rounds: int = 30,
    threads: int | None = None,
    runtime: str = "torch",
    progress: Progress | bool | None = None,
    **options: Unpack[BenchOptions],
) -> Sequence[Timing]:
    """Time a net; for a conversion the original, derived, folded and factored net, in one interleaved run.

    Another runtime than torch has no derived net.

    Args:
        net: a model name, a converted folder, a conversion, or a module.
        batch: images per batch.
        rounds: timed rounds; each runs every net once.
        threads: CPU threads. Default: torch's.
        runtime: what runs the nets: torch, or onnxruntime or openvino on the CPU.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: checkpoint, a weights file (for a conversion, the original's); inputs, fields of DataConfig that
            override the net's own; device: auto, cpu, cuda, cuda:1 or mps; model and trust_code, as for `finetune`.
    """
    check_keywords("benchmark", options, BenchOptions)
    progress = as_progress(progress)
    checkpoint, inputs = checkpoint_of(options), options.get("inputs")
    conversion = conversion_of(net, options.get("trust_code", False), options.get("model"))
    about: dict[str, Mapping[str, str]] = {}
    if conversion is None:
        loaded = load_any(cast("Model", net), checkpoint, inputs)
        nets, config = {"model": loaded.model}, loaded.data
    else:
        config = override(conversion.data, **inputs) if inputs else conversion.data
        nets = _forms(conversion, checkpoint, derived=runtime == "torch")
        about["converted"] = metadata(conversion.plan.model, conversion.recipe)
    how: dict[str, Any] = {"rounds": rounds, "threads": threads, "metadata": about, "progress": progress}
    if runtime == "torch":
        how["device"] = device_of_name(options.get("device", "auto"))
    else:
        clock = clock_of({"runtime": runtime, "threads": threads})
        how |= {"load": clock.runtime.load_net, "label": clock.label}
    rows = time_nets(nets, example_input(config, batch), **how)
    if conversion is None or conversion.coded is None:
        return rows
    size = conversion.plan.planned.bytes
    return tuple(replace(row, bytes=size) if row.name == "converted" else row for row in rows)


def _forms(conversion: Conversion, checkpoint: str | None, *, derived: bool) -> dict[str, nn.Module]:
    """The original, if its weights are available, and the conversion in each of its forms."""
    original = original_from(conversion, checkpoint)
    nets = {} if original is None else {"original": original}
    if derived:
        nets["converted"] = conversion.model
    for name, form in (("folded", fold), ("factored", factor)):
        try:
            nets[name] = form(copy.deepcopy(conversion.model))
        except FolderError:  # a trained gate cannot be folded
            continue
    return nets
