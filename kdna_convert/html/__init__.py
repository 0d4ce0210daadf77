"""A page in HTML, complete in one file, that shows a converted net or a result: parts, pictures and templates."""

from .material import Material
from .page import (
    ANALYSIS_PARTS,
    BENCH_PARTS,
    COMPARISON_PARTS,
    CURVE_PARTS,
    FOLDER_PARTS,
    PLAN_PARTS,
    SWEEP_PARTS,
    Page,
    page_of,
)
from .part import Part

__all__ = [
    "ANALYSIS_PARTS",
    "BENCH_PARTS",
    "COMPARISON_PARTS",
    "CURVE_PARTS",
    "FOLDER_PARTS",
    "PLAN_PARTS",
    "SWEEP_PARTS",
    "Material",
    "Page",
    "Part",
    "page_of",
]
