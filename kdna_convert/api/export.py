"""The verb `export`: a converted net as a file that loads without kdna."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..core.errors import ModelError
from ..core.plugin_names import ExportName
from ..inputs.data import Data, batches
from ..network.folder import Conversion
from ..stages.export import EXPORTS, Exported, ExportOptions, write_export
from ..stages.export.write import check_form, free_place
from .keywords import ExportKeywords, check_keywords
from .nets import opened
from .splits import images_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


def export(
    folder: str | Path | Conversion,
    *,
    to: ExportName = "merged",
    output: str | Path,
    data: Data | str | Path | None = None,
    limit: int = 100,
    seed: int = 0,
    force: bool = False,
    **options: Unpack[ExportKeywords],
) -> Exported:
    """Write a converted net in the format of another program, with a JSON record of the check against torch.

    Args:
        folder: a converted folder, or a conversion.
        to: a name of EXPORTS, such as onnx.
        output: the file or folder to write. The record of a file is FILE.json.
        data: images on which the export must return what torch returns, in addition to noise.
        limit: the number of images to use, drawn with `seed`.
        seed: seed of that draw.
        force: whether to replace an existing output.
        **options: model and trust_code, as for `finetune`; opset, dynamic, fp16, normalize and input_names, as in
            ExportOptions.

    Raises:
        ModelError: KD302 for a format that kdna does not have, KD312 if the net cannot be exported, KD315 for an option
            that the format does not take.
        FolderError: KD601 (the output exists), KD604 (it cannot be written), KD606 (a routing cannot be folded).
    """
    check_keywords("export", options, ExportKeywords)
    if to not in EXPORTS:
        raise ModelError("KD302", f"there is no export {to!r}; it is one of {', '.join(EXPORTS)}")
    form = EXPORTS[to]
    names = ("opset", "dynamic", "fp16", "normalize", "input_names")
    asked = ExportOptions(**{name: options[name] for name in names if name in options})  # type: ignore[literal-required]
    target = free_place(form, output, force)
    check_form(form, asked)
    conversion = opened(folder, options)
    images = None
    if data is not None:
        found = images_of(data, conversion.data, None, limit, seed)
        images = torch.cat([inputs for inputs, _ in batches(found, 50)])
    return write_export(form, conversion, target, asked, images, force=force)
