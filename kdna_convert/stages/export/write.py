"""Write a converted net in a form: checked against torch, with a record beside it, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from ... import __version__
from ...core.atomic import disk_errors, new_folder, require_writable
from ...core.errors import FolderError, ModelError
from ...core.filesize import metadata
from ...core.specs import DataConfig
from ...network.folder import Conversion
from ...tasks import is_detection
from .export import Export, Exported, ExportOptions, ExportSource
from .graph_outputs import named_tensors, outputs_of
from .source import check_inputs, source_of

RECORD = "export.json"  # in an exported folder; beside a file it is FILE.json


def write_export(
    form: Export,
    conversion: Conversion,
    path: str | Path,
    options: ExportOptions | None = None,
    images: Tensor | None = None,
    *,
    force: bool = False,
) -> Exported:
    """Write a converted net as one file or folder with a JSON record, or nothing. The conversion does not change.

    Args:
        form: A form of EXPORTS.
        conversion: The converted net.
        path: The file or folder. Missing folders are created.
        options: What the user asks of the form.
        images: Normalized images (N, *input_size) that the check runs on, in addition to noise.
        force: Replace an existing file, or a folder that an export wrote.

    Raises:
        FolderError: KD601 if the output exists and `force` is not given, KD604 if it cannot be written, KD606 if the
            form cannot hold a routing.
        ModelError: KD312 if a library is missing, the form cannot represent the net, or its outputs differ from
            torch's; KD315 for an option that the form does not take.
    """
    options = options or ExportOptions()
    target = free_place(form, path, force)
    check_form(form, options)
    options = replace(options, dynamic=()) if form.fixed else options
    if options.factored is None:
        planned = conversion.plan.planned.latency is not None
        options = replace(options, factored=planned and "factored" in form.takes)
    with torch.random.fork_rng(devices=[]):
        source = source_of(conversion, options, images, graph=form.graph)
        with _draft(form, target) as (draft, record):
            note = form.write(source, draft)
            found, checked = _compared(form, source, draft)
            if found is not None and not found <= form.tolerance(options):
                raise ModelError(
                    "KD312",
                    f"the outputs of the {form.name} export differ from torch's by {found:.1e} of the largest; "
                    f"the limit is {form.tolerance(options):.0e}; nothing was written",
                )
            made = Exported(form.name, str(target), 0, found, checked, note, form.usage(target), {})
            form.record(draft, _facts(made, source))
            made = replace(
                made, measures=form.measures(source, draft), bytes=sum(each.stat().st_size for each in _files(draft))
            )
            about = _about(form, source, draft)
            record.write_text(json.dumps(asdict(made) | about, indent=2) + "\n", encoding="utf-8")
    return made


def free_place(form: Export, path: str | Path, force: bool) -> Path:
    """The path as a Path, checked before the work.

    Raises FolderError KD601 if it exists and `force` is not given, or is a folder that no export wrote; KD604 if it
    cannot be written.
    """
    target = Path(path).absolute() if Path(path).name in ("", "..") else Path(path)
    record = target / RECORD if form.folder else _beside(target)
    if not form.folder and target.is_dir():
        raise FolderError("KD601", f"{target} is a folder; {form.name} writes a file")
    if form.folder and target.exists() and not record.is_file():
        raise FolderError("KD601", f"{target} exists and is not an export; choose a new name")
    if (target.exists() or record.exists()) and not force:
        taken = target if target.exists() else record
        raise FolderError("KD601", f"{taken} exists already; choose a new name, or pass --force")
    require_writable(target)
    return target


def check_form(form: Export, options: ExportOptions) -> None:
    """Check before the work that the form takes the options and that its libraries are installed.

    Raises ModelError KD312 for a missing library, KD315 for an option.
    """
    changed = [each.name for each in fields(options) if getattr(options, each.name) != each.default]
    refused = [name for name in changed if name not in form.takes]
    if refused:
        taken = ", ".join(_flag(name) for name in sorted(form.takes)) or "none"
        raise ModelError("KD315", f"{form.name} does not take {_flag(refused[0])}; it takes: {taken}")
    if unknown := sorted({*options.dynamic} - {"batch", "height", "width"}):
        raise ModelError("KD315", f"--dynamic {unknown[0]}: axes are batch, height and width")
    if len(options.input_names) != 1:
        raise ModelError("KD315", f"--input-names gives {len(options.input_names)} names; the net has one input")
    missing = [name for name in form.needs if find_spec(name) is None]
    if missing:
        raise ModelError("KD312", f"{', '.join(missing)} not installed: pip install 'kdna-convert[{form.extra}]'")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


@contextmanager
def _draft(form: Export, target: Path) -> Iterator[tuple[Path, Path]]:
    """A file path or an empty folder to write to, and the path of its record.

    They take their places when the block ends without an exception.
    """
    with disk_errors(target):
        if form.folder:
            with new_folder(target) as folder:
                yield folder, folder / RECORD
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
            draft, record = Path(place) / target.name, Path(place) / RECORD
            yield draft, record
            record.replace(_beside(target))
            draft.replace(target)


def _compared(form: Export, source: ExportSource, draft: Path) -> tuple[float | None, str]:
    """The largest difference from torch, and the inputs that were compared."""
    if (why := form.absent()) is not None:
        return None, f"nothing: {why}"
    exact = replace(source.options, fp16=False)
    reference = source_of(source.conversion, exact, None, graph=False).net if source.options.fp16 else source.net
    noise, images = check_inputs(source)
    noise = [] if form.calibrated and images else noise
    found = []
    for each in [*noise, *images]:
        try:
            expected = outputs_of(reference, each)
        except ModelError as error:  # only a form without a graph comes here with a net that does not run
            return None, f"nothing: {error.message}"
        if is_detection(expected):
            return None, "nothing: the number of boxes of a detector depends on rounding"
        found.append(difference(form.run(source, draft, each), named_tensors(expected)))
    what = (["noise"] if noise else []) + ([f"{sum(map(len, images))} images"] if images else [])
    return max(found), " and ".join(what)


def difference(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest difference of an output, relative to its largest number; infinite for other names or shapes."""
    if list(given) != list(expected) or any(given[name].shape != expected[name].shape for name in given):
        return math.inf
    pairs = [(given[name].double(), expected[name].double()) for name in given]
    return max((float((own - z).abs().max() / z.abs().max().clamp_min(1e-30)) for own, z in pairs), default=0.0)


def _files(draft: Path) -> list[Path]:
    return sorted(each for each in draft.rglob("*") if each.is_file()) if draft.is_dir() else [draft]


def _facts(made: Exported, source: ExportSource) -> dict[str, str]:
    """What the file itself can say of where it comes from and of the images that it takes."""
    data = source.conversion.data
    input_facts = {
        key: json.dumps(value) for key, value in TypeAdapter(DataConfig).dump_python(data, mode="json").items()
    }
    about = metadata(source.conversion.plan.model, source.conversion.recipe)
    checked = {"kdna_version": __version__, "difference": "" if made.difference is None else f"{made.difference:.2e}"}
    return about | input_facts | checked | {"normalized_inside": json.dumps(source.options.normalize)}


def _about(form: Export, source: ExportSource, draft: Path) -> dict[str, Any]:
    """The rest of the record: what was exported and from what, by which versions."""
    files = {
        "." if each == draft else each.relative_to(draft).as_posix(): {
            "bytes": each.stat().st_size,
            "sha256": hashlib.sha256(each.read_bytes()).hexdigest(),
        }
        for each in _files(draft)
    }
    return {
        "files": files,
        "options": asdict(source.options),
        "input": TypeAdapter(DataConfig).dump_python(source.conversion.data, mode="json"),
        "source": metadata(source.conversion.plan.model, source.conversion.recipe),
        "versions": {"kdna-convert": __version__, "torch": torch.__version__}
        | {name: _version(name) for name in form.needs},
    }


def _version(library: str) -> str:
    names = packages_distributions().get(library, [library])
    try:
        return version(names[0])
    except PackageNotFoundError:
        return "unknown"
