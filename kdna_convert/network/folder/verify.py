"""Check everything that a converted folder records about itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import FolderError, KdnaError
from ...core.filesize import metadata
from ...core.tensorfile import load_tensors
from ...inputs.models import example_input, fit_original, state_digest
from ..derive import fold
from ..stored import stored_state
from .conversion import Conversion
from .load import open_folder
from .rebuild import rebuild
from .record import FILES, TENSORS, Record, check_file, read_record
from .trust import permitted

# The largest allowed difference between the outputs of the folded and the derived net, relative to the largest output.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, and the details. A check that is not possible here is `ok`."""

    name: str
    ok: bool
    detail: str


def verify(directory: str | Path, *, model: nn.Module | None = None, trust_code: bool = False) -> tuple[Check, ...]:
    """Check a folder: its files, tensors and size, loading and folding, and its original.

    The groups of checks depend on each other: after a failed one the rest is skipped.

    Args:
        directory: The folder.
        model: The architecture, for nets that kdna cannot build by name. It is not changed.
        trust_code: Whether to run the code that the folder names, as for open_folder.

    Raises:
        FolderError: KD602 if kdna did not write the folder, KD611 if checking it needs `trust_code`.
    """
    folder = Path(directory)
    checks = [_check("config.json", partial(_config, folder))]
    for group in (_files, _contents, _original):
        if not all(check.ok for check in checks):
            break
        checks += group(folder, model, trust_code)
    return tuple(checks)


def _check(name: str, claim: Callable[[], str]) -> Check:
    """A check passes with the details that `claim` returns, and fails if `claim` raises."""
    try:
        return Check(name, True, claim())
    except KdnaError as error:
        if error.code in ("KD602", "KD611"):
            raise
        return Check(name, False, error.message)


def _config(folder: Path) -> str:
    record = read_record(folder)
    return f"format {record.version}, made from {record.model.name}"


def _files(folder: Path, model: nn.Module | None, trust_code: bool) -> Iterator[Check]:
    record = read_record(folder)

    def whole(name: str) -> str:
        check_file(folder, record, name)
        return "sha256 as recorded"

    return (_check(name, partial(whole, name)) for name in FILES)


def _contents(folder: Path, model: nn.Module | None, trust_code: bool) -> Iterator[Check]:
    opened: list[Conversion] = []

    def loads() -> str:
        opened.append(open_folder(folder, model=copy.deepcopy(model), trust_code=trust_code))
        return "the architecture is built and every tensor has its place"

    yield _check("loads", loads)
    claims = {"header": _header, "finite": _finite, "totals": _totals, "folded": _folded}
    for conversion in opened:
        for name, claim in claims.items():
            yield _check(name, partial(claim, folder, conversion))


def _header(folder: Path, conversion: Conversion) -> str:
    _, written = load_tensors(folder / TENSORS)
    wrong = [
        key for key, value in metadata(conversion.plan.model, conversion.recipe).items() if written.get(key) != value
    ]
    if wrong or conversion.plan.model != read_record(folder).model:
        raise _broken(f"config, plan, recipe and tensors are not of one conversion: {', '.join(wrong) or 'model'}")
    return "model and recipe as in plan.json and recipe.yaml"


def _finite(folder: Path, conversion: Conversion) -> str:
    state = stored_state(conversion.model)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise _broken(f"NaN or infinity in {', '.join(broken[:8])}")
    return f"{len(state)} tensors"


def _totals(folder: Path, conversion: Conversion) -> str:
    planned = conversion.plan.planned
    params = sum(parameter.numel() for parameter in conversion.model.parameters())
    size = (folder / TENSORS).stat().st_size
    size_text = f"{params:,} parameters in {size:,} bytes"
    if (params, size) != (planned.params, planned.bytes):
        raise _broken(f"{size_text}, but the plan says {planned.params:,} in {planned.bytes:,}")
    return f"{size_text}, as planned"


def _folded(folder: Path, conversion: Conversion) -> str:
    """Folding computes the same kernels, so only rounding may differ."""
    try:
        folded = fold(copy.deepcopy(conversion.model))
    except FolderError as error:
        return f"not checked: {error.message}"
    image = example_input(conversion.data)
    outputs = [_output(net, image) for net in (conversion.model, folded)]
    pairs = list(zip(*map(_tensors, outputs), strict=True))
    difference = max((_relative(derived, plain) for derived, plain in pairs), default=0.0)
    if not difference <= TOLERANCE:
        raise _broken(f"folding changes the output by {difference:.1e} of its largest value")
    return f"folding changes the output by {difference:.1e} of its largest value"


def _output(net: nn.Module, image: Tensor) -> Any:
    """The output under one seed: a net may draw random numbers as it runs."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return net(image)


def _original(folder: Path, model: nn.Module | None, trust_code: bool) -> Iterator[Check]:
    record = read_record(folder)
    ref = record.model
    if ref.checkpoint is None or not Path(ref.checkpoint).is_file():
        where = "it is not a local checkpoint" if ref.checkpoint is None else f"{ref.checkpoint} is not here"
        yield Check("original", True, f"not checked: {where}")
    else:
        yield _check("original", partial(_unchanged, folder, model, trust_code, record, ref.checkpoint))


def _unchanged(folder: Path, model: nn.Module | None, trust_code: bool, record: Record, checkpoint: str) -> str:
    original = copy.deepcopy(model)
    if original is None:
        original = rebuild(permitted(record, folder, trust_code=trust_code), folder)
    fit_original(original, checkpoint, record.model.sha256)
    if state_digest(original) != record.model.sha256:
        raise _broken(f"{checkpoint} has changed since the conversion")
    return f"{checkpoint} is the checkpoint it was made from"


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of a model's output, at any depth of lists and dicts."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from (tensor for value in output.values() for tensor in _tensors(value))
    elif isinstance(output, list | tuple):
        yield from (tensor for value in output for tensor in _tensors(value))


def _relative(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape or not expected.numel():
        return 0.0 if expected.shape == actual.shape else float("inf")
    return float((expected - actual).abs().max() / expected.abs().max().clamp_min(1e-30))


def _broken(what: str) -> FolderError:
    return FolderError("KD603", what)
