"""The verb `profile`: the time of a net's layers in each form, by the runtime that will run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import RecipeError
from ..core.measurements import Profile
from ..core.progress import as_progress
from ..core.specs import Progress
from ..inputs.models import example_input
from ..schemes import SCHEMES
from ..stages.analyze.survey import survey
from ..stages.latency.layer_profile import profile_layers
from .keywords import ProfileOptions, check_keywords
from .latency import clock_of
from .nets import Model, checkpoint_of, load_any

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Schemes whose chains differ: of three layers (1x1, depthwise, 1x1), of two (with taps, 1x1), of three full ones.
CHAINS = ("cp", "lowrank", "tucker")


def profile(
    model: Model,
    *,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    batch: int = 1,
    schemes: Sequence[str] = CHAINS,
    profile: str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[ProfileOptions],
) -> Profile:
    """Time a net and its layers on this machine: dense, in 8 bits, and as the chains that sharing can make of them.

    Every time is kept in a file and measured once. `convert` and `plan` with `target_latency` use the same file.

    Args:
        model: a model name, or a module.
        runtime: onnxruntime, openvino or torch.
        threads: CPU threads. Default: torch's.
        batch: images per batch.
        schemes: names of SCHEMES; those without a chain have no times.
        profile: the file of times. Default: ~/.cache/kdna/latency.jsonl.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: checkpoint, its key and prefix, and inputs, as for `convert`.

    Raises:
        ModelError: KD302 for an unknown runtime, KD312 for one that is not installed or cannot run the net.
        RecipeError: KD202 for an unknown scheme.
    """
    check_keywords("profile", options, ProfileOptions)
    progress = as_progress(progress)
    for name in schemes:
        if name not in SCHEMES:
            raise RecipeError("KD202", f"there is no scheme {name!r}; it is one of {', '.join(SCHEMES)}")
    clock = clock_of({"runtime": runtime, "threads": threads, "profile": profile})
    loaded = load_any(model, checkpoint_of(options), options.get("inputs"))
    example = example_input(loaded.data, batch)
    layers = survey(loaded.model, example[:1])
    return profile_layers(loaded.model.eval(), layers, example, clock, schemes, loaded.ref.sha256, progress)
