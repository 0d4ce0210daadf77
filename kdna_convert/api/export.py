"""The verb `export`: a converted net as a file that loads without kdna."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ModelError
from ..core.plugin_names import ExportName
from ..network.folder import Conversion
from ..stages.export import EXPORTS, Exported
from ..stages.export.export import free_path
from .keywords import FolderOptions, check_keywords
from .nets import opened

if TYPE_CHECKING:
    from typing_extensions import Unpack


def export(
    folder: str | Path | Conversion,
    *,
    to: ExportName = "merged",
    output: str | Path,
    force: bool = False,
    **options: Unpack[FolderOptions],
) -> Exported:
    """Write a converted net in the format of another program.

    Args:
        folder: a converted folder, or a conversion.
        to: merged, the state dict of the original net as .safetensors; or onnx, a graph.
        output: the file to write.
        force: whether to replace an existing file.
        **options: model and trust_code, as for `finetune`.

    Raises:
        ModelError: KD302 for a format that kdna does not have.
        FolderError: KD601 (the file exists), KD604 (it cannot be written), KD606 (a routing cannot be folded).
    """
    check_keywords("export", options, FolderOptions)
    if to not in EXPORTS:
        raise ModelError("KD302", f"there is no export {to!r}; it is one of {', '.join(EXPORTS)}")
    target = free_path(output, force)
    return EXPORTS[to].write(opened(folder, options), target, force=force)
