"""Check a converted folder by itself: files, tensors, totals, folding. api/verify.py computes the plan again too."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import FolderError, KdnaError, cause
from ...core.filesize import metadata
from ...core.regular import read_regular
from ...core.tensorfile import load_tensors
from ...inputs.models import fit_original, state_digest
from ..derive import fold
from ..inference import is_packed, own_example
from ..stored import stored_state
from .card import model_card
from .config import timm_config
from .conversion import Conversion
from .load import open_folder
from .rebuild import rebuild
from .record import CARD, CONFIG, FILES, LOADER, TENSORS, Record, check_file, read_record
from .save import STANDALONE_LOADER
from .trust import permitted

# The largest allowed difference between the outputs of the folded and the derived net, relative to the largest output.
TOLERANCE = 1e-4
NOT_CHECKED = "not checked: "
# The sha256 of the loaders of earlier versions, which never change.
_LOADERS = {"b8254ea91933b2f7304340031c8af48553d66cee9e126aa73f4d47c2941208d5": "kdna 0.1.0"}


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, and the details. One that is not possible is `ok` and not `checked`."""

    name: str
    ok: bool
    detail: str
    checked: bool = True


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
    checks = [checked("config.json", partial(_config, folder))]
    for group in (_files, _contents, _original):
        if not all(check.ok for check in checks):
            break
        checks += group(folder, model, trust_code)
    return tuple(checks)


def unchecked(name: str, why: str) -> Check:
    """A statement of the folder that is not checked, and why."""
    return Check(name, True, f"{NOT_CHECKED}{why}", checked=False)


def checked(name: str, claim: Callable[[], str]) -> Check:
    """A check passes with the details that `claim` returns, and fails if `claim` raises."""
    try:
        detail = claim()
        return Check(name, True, detail, checked=not detail.startswith(NOT_CHECKED))
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
        return _loader(record.files[LOADER]) if name == LOADER else "sha256 as recorded"

    yield from (checked(name, partial(whole, name)) for name in FILES)
    others = sorted(path.name for path in folder.iterdir() if path.name not in (CONFIG, *FILES))
    if others:
        yield unchecked("other files", f"not of the folder: {', '.join(others)}")


def _loader(digest: str) -> str:
    """Whose loader.py it is: it is code, and the folder of a stranger may have any."""
    own = hashlib.sha256(STANDALONE_LOADER.read_bytes()).hexdigest()
    loaders = {own: "this kdna"} | _LOADERS
    if digest not in loaders:
        return f"{NOT_CHECKED}a loader that this kdna does not know, as recorded; to run one, use kdna's own"
    return f"sha256 as recorded, the loader of {loaders[digest]}"


def _contents(folder: Path, model: nn.Module | None, trust_code: bool) -> Iterator[Check]:
    opened: list[Conversion] = []

    def loads() -> str:
        opened.append(open_folder(folder, model=copy.deepcopy(model), trust_code=trust_code))
        return "the architecture is built and every tensor has its place"

    yield checked("loads", loads)
    claims = {"header": _header, "model card": _card, "finite": _finite, "totals": _totals, "folded": _folded}
    for conversion in opened:
        for name, claim in claims.items():
            yield checked(name, partial(claim, folder, conversion))


def _header(folder: Path, conversion: Conversion) -> str:
    _, written = load_tensors(folder / TENSORS)
    wrong = [
        key for key, value in metadata(conversion.plan.model, conversion.recipe).items() if written.get(key) != value
    ]
    if wrong or conversion.plan.model != read_record(folder).model:
        raise broken(f"config, plan, recipe and tensors are not of one conversion: {', '.join(wrong) or 'model'}")
    config = json.loads(read_regular(folder / CONFIG))
    own = json.loads(json.dumps(timm_config(conversion.model, conversion.plan.model.name, conversion.data)))
    for said, known in ((config, own), (config.get("pretrained_cfg"), own["pretrained_cfg"])):
        for key in (*asdict(conversion.data), "num_classes"):
            if isinstance(said, dict) and key in known and said.get(key, known[key]) != known[key]:
                raise broken(f"config.json says {key} {said[key]}, the net has {known[key]}")
    return "model, recipe and input as in plan.json, recipe.yaml and config.json"


def _card(folder: Path, conversion: Conversion) -> str:
    """The card repeats figures of the plan and the report."""
    text = read_regular(folder / CARD).decode(errors="replace")
    title = next((line[2:] for line in text.splitlines() if line.startswith("# ")), "")
    names = (folder.resolve().name, re.sub(r"\\\\(.)", r"\\1", title))
    if text in (model_card(conversion.plan, conversion.recipe, conversion.report, name) for name in names):
        return "as kdna writes it from plan.json, recipe.yaml and report.json"
    return f"{NOT_CHECKED}README.md is not what this kdna writes: edited, or of another version"


def _finite(folder: Path, conversion: Conversion) -> str:
    state = stored_state(conversion.model)
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        raise broken(f"NaN or infinity in {', '.join(wrong[:8])}")
    return f"{len(state)} tensors"


def _totals(folder: Path, conversion: Conversion) -> str:
    planned = conversion.plan.planned
    params = sum(parameter.numel() for parameter in conversion.model.parameters())
    size = (folder / TENSORS).stat().st_size
    size_text = f"{params:,} parameters in {size:,} bytes"
    if (params, size) != (planned.params, planned.bytes):
        raise broken(f"{size_text}, but the plan says {planned.params:,} in {planned.bytes:,}")
    return f"{size_text}, as planned"


def _folded(folder: Path, conversion: Conversion) -> str:
    """Folding computes the same kernels, so only rounding may differ."""
    try:
        folded = fold(copy.deepcopy(conversion.model))
    except FolderError as error:
        return f"{NOT_CHECKED}{error.message}"
    image = own_example(conversion.model, conversion.data)
    try:
        outputs = [_output(net, image) for net in (conversion.model, folded)]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # what a net raises for an input of another form
        if is_packed(conversion.data):
            return f"{NOT_CHECKED}the net does not run on a single input"
        raise broken(f"the net does not run on an input of {tuple(image.shape)}: {cause(error)}") from error
    pairs = list(zip(*map(_tensors, outputs), strict=True))
    difference = max((_relative(derived, plain) for derived, plain in pairs), default=0.0)
    if not difference <= TOLERANCE:
        raise broken(f"folding changes the output by {difference:.1e} of its largest value")
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
        yield unchecked("original", where)
    else:
        yield checked("original", partial(_unchanged, folder, model, trust_code, record, ref.checkpoint))


def _unchanged(folder: Path, model: nn.Module | None, trust_code: bool, record: Record, checkpoint: str) -> str:
    original = copy.deepcopy(model)
    if original is None:
        original = rebuild(permitted(record, folder, trust_code=trust_code), folder)
    fit_original(original, checkpoint, record.model.sha256)
    if state_digest(original) != record.model.sha256:
        raise broken(f"{checkpoint} has changed since the conversion")
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


def broken(what: str) -> FolderError:
    """The error of a check that fails."""
    return FolderError("KD603", what)
