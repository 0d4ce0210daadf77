"""The verb `export`: a converted net as a file that loads without kdna."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import DataError, ModelError
from ..core.plugin_names import ExportChoice
from ..inputs.data import Data, batches
from ..network.folder import Conversion
from ..stages.export import EXPORTS, Exported, ExportOptions, write_export
from ..stages.export.fastest import LEAST, Fastest, write_fastest
from ..stages.export.write import check_form, free_place
from .keywords import ExportKeywords, check_keywords
from .nets import opened
from .splits import images_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


FASTEST = "fastest"


def export(
    folder: str | Path | Conversion,
    *,
    to: ExportChoice = "merged",
    output: str | Path,
    data: Data | str | Path | None = None,
    limit: int = 100,
    seed: int = 0,
    force: bool = False,
    **options: Unpack[ExportKeywords],
) -> Exported | Fastest:
    """Write a converted net in the format of another program, with a JSON record of the check against torch.

    Args:
        folder: a converted folder, or a conversion.
        to: a name of EXPORTS, such as onnx; or fastest, for that which runs fastest here and still agrees with torch.
        output: the file or folder to write. The record of a file is FILE.json.
        data: images on which the export must return what torch returns, in addition to noise.
        limit: the number of images to use, drawn with `seed`.
        seed: seed of that draw.
        force: whether to replace an existing output.
        **options: model and trust_code, as for `finetune`; opset, dynamic, fp16, normalize, input_names and factored,
            as in ExportOptions; min_agreement, the least agreement with torch of `fastest`, 0..1.

    Returns:
        What was written. For `fastest` see write_fastest in stages/export/fastest.py.

    Raises:
        DataError: KD405 for less than two images, where these are needed.
        ModelError: KD302 for a format that kdna does not have, KD312 if the net cannot be exported, KD315 for an option
            that the format does not take.
        FolderError: KD601 (the output exists), KD604 (it cannot be written), KD606 (a routing cannot be folded).
    """
    check_keywords("export", options, ExportKeywords)
    if to not in (FASTEST, *EXPORTS):
        raise ModelError("KD302", f"there is no export {to!r}; it is one of {', '.join(EXPORTS)} and {FASTEST}")
    names = ("opset", "dynamic", "fp16", "normalize", "input_names", "factored")
    asked = ExportOptions(**{name: options[name] for name in names if name in options})  # type: ignore[literal-required]
    least = options.get("min_agreement")
    if to == FASTEST:
        conversion = opened(folder, options)
        drawn = _drawn(data, conversion, limit, seed)
        asked_for = LEAST if least is None else least
        return write_fastest(conversion, output, drawn, asked, least=asked_for, force=force)
    if least is not None:
        raise ModelError("KD315", f"{to} does not take --min-agreement; {FASTEST} does")
    form = EXPORTS[to]
    target = free_place(form, output, force)
    check_form(form, asked)
    conversion = opened(folder, options)
    images = None if data is None else _drawn(data, conversion, limit, seed)
    return write_export(form, conversion, target, asked, images, force=force)


def default_place(folder: str | Path, to: ExportChoice) -> Path:
    """Where an export goes that is told no other place: the folder's name and the form's ending."""
    return Path(f"{Path(folder)}{'-fastest' if to == FASTEST else EXPORTS[to].suffix}")


def require_exportable(to: ExportChoice, data: object) -> None:
    """Raise before the work what `export` would raise after it: ModelError KD312 for a missing library, DataError KD405
    for missing images."""
    form = EXPORTS["onnx" if to == FASTEST else to]
    check_form(form, ExportOptions())
    if data is None and (to == FASTEST or form.calibrated):
        raise _no_images(to)


def _no_images(to: str) -> DataError:
    return DataError("KD405", f"{to} is measured on images: pass --data DATA with two images or more")


def _drawn(data: Data | str | Path | None, conversion: Conversion, limit: int, seed: int) -> Tensor:
    """The images as one tensor. Raises DataError KD405 without any."""
    if data is None:
        raise _no_images(FASTEST)
    found = images_of(data, conversion.data, None, limit, seed)
    return torch.cat([inputs for inputs, _ in batches(found, 50)])
