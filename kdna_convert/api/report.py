"""The verb `report`: a converted net as a page in HTML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ..core.errors import FolderError
from ..core.progress import as_progress
from ..core.specs import Progress
from ..html import Material, Page, page_of
from ..inputs.data import Data
from ..network.folder import Conversion
from ..network.folder.original import original_of
from .answer_comparison import answer_comparison
from .keywords import ReportOptions, check_keywords
from .layer_pictures import family_pictures, kernel_pictures
from .layer_similarity import weight_similarity
from .nets import checkpoint_of, opened, original_from
from .result_pages import material_of, material_of_folder

if TYPE_CHECKING:
    from typing_extensions import Unpack


def report(
    net: str | Path | Conversion,
    /,
    *,
    data: Data | str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    pictures: bool = True,
    progress: Progress | bool | None = None,
    **options: Unpack[ReportOptions],
) -> Page:
    """A page of a converted net: what came out, its layers, where accuracy went, how it was made.

    Code that a folder names is run only with `trust_code`, or after `kdna trust`. Without, and without the original,
    the parts that need them are left out and say so.

    Args:
        net: a folder that `convert` or `run` wrote, or a conversion.
        data: images on which the answers of both nets are compared, labeled for accuracy: a path, a tensor, or batches.
        limit: use only this number of images, drawn with `seed`.
        seed: seed of that draw.
        pictures: whether the page shows some of these images. Without, their names and the answers remain.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: model, trust_code, checkpoint, inputs, class_map, device, task and outputs, as for `evaluate`.

    Returns:
        The page, one HTML file that loads nothing. `save(path)` writes it; a notebook shows it.

    Raises:
        FolderError: KD602, KD603 or KD605, as `load`; KD607 or KD611 where `data` is given and a net
            cannot be built.
        DataError: KD401, KD402 or KD406 for images that do not fit, as for `evaluate`.
        ModelError: KD308 or KD313 for a task that does not, as for `evaluate`.
    """
    check_keywords("report", options, ReportOptions)
    conversion, original, missing = _nets(net, options, needed=data is not None)
    material = material_of(net) if isinstance(net, Conversion) else material_of_folder(Path(net))
    material = _with_kernels(material, conversion, original, missing)
    if data is not None and conversion is not None and original is not None:
        compared = answer_comparison(
            conversion,
            original,
            data,
            options,
            limit=limit,
            seed=seed,
            pictures=pictures,
            progress=as_progress(progress),
        )
        material = replace(material, disagreement=compared.disagreement)
        if compared.disagreement.labeled:
            material = replace(material, original=compared.original, converted=compared.converted)
    return page_of(material)


def report_of_folder(folder: Path, conversion: Conversion) -> Page:
    """The page of a folder that was just written of this conversion, which has no images."""
    _, original, missing = _nets(conversion, {}, needed=False)
    return page_of(_with_kernels(material_of_folder(folder), conversion, original, missing))


def _with_kernels(
    material: Material, conversion: Conversion | None, original: nn.Module | None, missing: str | None
) -> Material:
    """With pictures of the families, and the similarity of the layers of the original, or else of the converted net."""
    if conversion is None:
        return replace(material, missing=missing, compared=f"The layers were not compared: {missing}.")
    net, whose = (conversion.model, "the converted net") if original is None else (original, "the original")
    analysis, compared = weight_similarity(net, conversion.plan, whose)
    return replace(
        material,
        missing=missing,
        analysis=analysis,
        compared=compared,
        kernels={} if analysis is None else kernel_pictures(net, analysis),
        families=family_pictures(conversion, original),
    )


def _nets(
    net: str | Path | Conversion, options: ReportOptions, needed: bool
) -> tuple[Conversion | None, nn.Module | None, str | None]:
    """The conversion, the original, and why one is not there: the parts that need it are then left out.

    Where both are `needed`, a FolderError says why.
    """
    try:
        conversion = opened(net, options)
    except FolderError as error:
        if needed or error.code not in ("KD607", "KD611"):
            raise
        return None, None, str(error)
    checkpoint = checkpoint_of(options)
    original = original_of(conversion, checkpoint).model if needed else original_from(conversion, checkpoint)
    missing = "the original's weights are not available; pass --checkpoint FILE" if original is None else None
    return conversion, original, missing
