"""The verb `compare`: run every tool at every budget, then measure all nets on the same images."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.comparison import Comparison, ComparisonRow, Rung
from ...core.errors import DataError, ModelError, PlanError
from ...core.progress import as_progress
from ...core.specs import Progress
from ...inputs.data import Data, batches
from ...inputs.models import example_input
from ...inputs.recipe import Recipe, load_recipe, parse_recipe, parse_share, parse_target
from ...network.totals import totals
from ..job import Job, open_job
from ..keywords import CompareOptions, JobOptions, check_keywords
from ..net_task import metric_of
from ..nets import Model, check_labels, checkpoint_of
from ..splits import images_of
from .child import PeerError, run
from .evaluate_nets import BATCH, Entry, with_accuracy, with_times
from .peers import PEERS, peers_of
from .tool_run import ToolRun, count, written_bytes
from .worker import IMAGES, NET

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Seconds that a tool may take for one net.
TIME_LIMIT = 1800
# The default recipes of kdna's rows, and the default budgets.
PARAMS_RECIPE, BYTES_RECIPE = "balanced", "smallest"
DEFAULT_AT, DEFAULT_BYTES = (0.5, 0.25), ("1/14", "1/20")
ORIGINAL = "original"


def compare(
    model: Model,
    *,
    data: Data | str | Path,
    eval: Data | str | Path,  # noqa: A002 - the flag's name
    at: Sequence[float | str] | None = None,
    bytes: Sequence[float | str] | None = None,  # noqa: A002
    peers: Sequence[str] | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[CompareOptions],
) -> Comparison:
    """Compare kdna with other tools on the CPU: the same net, the same images, the same budgets.

    Every tool may use the same unlabeled images of `data`: the calibration and held-out images of `recipe`. Every net
    is measured on the images of `eval`.

    Args:
        model: a model name, or a module that can be pickled.
        data: images to calibrate on: a path, a tensor of inputs, or batches.
        eval: images to measure on.
        at: budgets as shares of the net's parameters: 0.5, "50%" or "1/2". Default: DEFAULT_AT if `bytes` is not given.
        bytes: budgets as sizes of the file ("570kB"), or as shares of the original's file ("1/14", "5%"). Default:
            DEFAULT_BYTES if `at` is not given.
        peers: the tools, by their names in PEERS. Default: all.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: `recipe` and `bytes_recipe`, kdna's recipes for the two kinds of budget; checkpoint, inputs,
            class_map, task, outputs and metric, as for `convert`; `limit`, the number of images of `eval`;
            `time_limit`, seconds that a tool may take for one net (1800).

    Returns:
        A row for every net. A tool that is not installed, fails or takes too long has a row with its `problem`.

    Raises:
        PlanError: KD506 for an invalid budget, KD508 for an unknown peer.
        ModelError: KD302 for a converted folder, or a module that cannot be passed to another process.
    """
    check_keywords("compare", options, CompareOptions)
    progress = as_progress(progress)
    if isinstance(model, str | Path) and Path(model).is_dir():
        raise ModelError("KD302", f"{model} is a folder; pass the net that it was converted from")
    names = peers_of(peers)
    recipe, bytes_recipe = options.get("recipe", PARAMS_RECIPE), options.get("bytes_recipe", BYTES_RECIPE)
    recipes = {"params": _recipe(recipe), "bytes": _recipe(bytes_recipe)}
    net_options: JobOptions = {"checkpoint": checkpoint_of(options), "inputs": options.get("inputs")}
    net_options |= {"task": options.get("task"), "outputs": options.get("outputs")}
    metric = metric_of(options)
    job = open_job(model, recipes["params"], data, net_options, progress)
    recipes = {axis: _with_task(recipe, options.get("task")) for axis, recipe in recipes.items()}
    images = images_of(eval, job.loaded.data, options.get("class_map"), options.get("limit"), job.recipe.seed)
    check_labels(images, job.loaded.model, job.loaded.data, job.task)
    ladder = _Ladder(model, job, rungs_of(job.loaded.model, at, bytes), names, recipes)
    pool = _pool(job)
    entries = _entries(ladder, pool, net_options, options.get("time_limit", TIME_LIMIT), progress)
    entries = with_accuracy(entries, images, job.task, metric, progress)
    rows, device = with_times(entries, example_input(job.loaded.data), progress)
    whole = rows[0].params or 1
    rows = [row if row.params is None else replace(row, kept=row.params / whole) for row in rows]
    name, skipped = str(job.loaded.ref.name), tuple(images.skipped)
    return Comparison(name, len(images), len(pool), device, ladder.rungs, tuple(rows), skipped, job.task.name)


@dataclass(frozen=True)
class _Ladder:
    """The net, the budgets, the tools, and kdna's recipe for each kind of budget."""

    model: Model
    job: Job
    rungs: tuple[Rung, ...]
    names: Sequence[str]
    recipes: Mapping[str, Recipe]


def _entries(
    ladder: _Ladder, pool: Tensor, options: JobOptions, seconds: float, progress: Progress | None
) -> list[Entry]:
    """The original, and the nets of every tool at every budget."""
    job = ladder.job
    entries = [_original(job.loaded.model, pool)]
    layers = tuple(layer.name for layer in job.layers if layer.reason is None)
    outputs = _passed(options.get("outputs"))
    with tempfile.TemporaryDirectory(prefix="kdna-compare-") as name:
        folder = Path(name)
        source = _write_inputs(folder, ladder.model, job.loaded.model, pool)
        pairs = _tasks(ladder.names, ladder.rungs)
        for done, (peer, rung) in enumerate(pairs):
            recipe = ladder.recipes["params" if rung is None else rung.axis]
            tool_run = ToolRun(
                peer, rung, source, checkpoint_of(options), options.get("inputs"), layers, recipe, outputs
            )
            if progress is not None:
                size = rung.label if rung else "one size"
                progress(f"convert: {PEERS[peer].title}, {size}", done, len(pairs))
            entries += _run_tool(tool_run, folder, seconds)
    return entries


def _tasks(names: Sequence[str], rungs: Sequence[Rung]) -> list[tuple[str, Rung | None]]:
    """The pairs of tool and budget: first the tools without a budget, then budget by budget."""
    unlimited: list[tuple[str, Rung | None]] = [(name, None) for name in names if not PEERS[name].axes]
    return unlimited + [(name, rung) for rung in rungs for name in names if rung.axis in PEERS[name].axes]


def _recipe(recipe: Recipe | str) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def _with_task(recipe: Recipe, task: str | None) -> Recipe:
    return recipe if task is None else parse_recipe(recipe.text, [f"task={task}"])


def rungs_of(
    original: nn.Module, at: Sequence[float | str] | None, sizes: Sequence[float | str] | None
) -> tuple[Rung, ...]:
    """The budgets as numbers: first shares of the parameters, then sizes of the file. Raises PlanError KD506."""
    if at is None and sizes is None:
        at, sizes = DEFAULT_AT, DEFAULT_BYTES
    params, size = count(original), written_bytes(original)
    shares = [parse_share(share) for share in at or ()]
    limits = [parse_target(each, size) for each in sizes or ()]
    if 1 in shares:
        raise PlanError("KD506", "--at 1 is the original; pass shares below 1, such as 0.5,0.25")
    for limit in limits:
        if limit >= size:
            raise PlanError("KD506", f"--bytes {limit}: the original has {size} bytes; pass a smaller size")
    by_params = [Rung("params", share, int(share * params)) for share in shares]
    return (*by_params, *(Rung("bytes", limit / size, limit) for limit in limits))


def _pool(job: Job) -> Tensor:
    """All images that a tool may use, as inputs (N, C, H, W)."""
    parts = [part for part in (job.calibration, job.heldout) if part is not None]
    if not parts:
        raise DataError("KD405", "a comparison needs calibration images")
    return torch.cat([inputs for part in parts for inputs, _ in batches(part, BATCH)])


def _write_inputs(folder: Path, model: Model, original: nn.Module, pool: Tensor) -> str | None:
    """Write the inputs of all tasks to the folder. Returns the name of the model; None for a module."""
    torch.save(pool, folder / IMAGES)
    if not isinstance(model, nn.Module):
        return str(model)
    try:
        torch.save(original, folder / NET)
    except Exception as error:  # pickling can raise anything
        solution = "pass path/to/file.py:factory and its checkpoint instead"
        raise ModelError(
            "KD302", f"{type(model).__name__} cannot be pickled for another process; {solution}"
        ) from error
    return None


def _passed(outputs: Any) -> Any:
    """The function of `outputs` or its name, as it is. Raises ModelError KD314 if no other process can have it."""
    try:
        pickle.dumps(outputs)
    except Exception as error:  # pickling can raise anything
        way_out = "pass file.py:function instead"
        raise ModelError("KD314", f"outputs cannot be pickled for another process; {way_out}") from error
    return outputs


def _original(net: nn.Module, pool: Tensor) -> Entry:
    cost = totals(net, pool[:1])
    return Entry(ComparisonRow(ORIGINAL, ORIGINAL, None, cost.params, bytes=cost.bytes, macs=cost.macs), net)


def _run_tool(tool_run: ToolRun, folder: Path, seconds: float) -> list[Entry]:
    """The rows of one tool_run: one, or two if the net is also measured with new batch-norm statistics."""
    peer = PEERS[tool_run.peer]
    row = ComparisonRow(tool_run.peer, peer.title, tool_run.rung)
    if peer.missing:
        return [Entry(replace(row, problem=peer.missing))]
    try:
        result = run(tool_run, folder, seconds)
    except PeerError as error:
        return [Entry(replace(row, problem=str(error)))]
    plain = result.plain
    row = replace(row, params=plain.params, bytes=plain.bytes, macs=plain.macs, seconds=result.seconds)
    entries = [Entry(row, plain.net)]
    if result.renormed is not None:
        second = replace(row, title=f"{row.title} +BN", seconds=result.seconds + result.renorm_seconds)
        entries.append(Entry(second, result.renormed, timed=False))
    return entries
