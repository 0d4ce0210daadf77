"""The converted folder, and the only way to it.

conversion.py is what it stores; save.py writes and load.py reads it; record.py is its record of itself, which verify.py
checks; config.py has timm's fields, report.py what was measured, card.py the model card; rebuild.py builds the
architecture that it names, original.py the net it was made from; work.py is the folder of an unfinished run.
"""

from __future__ import annotations

from .conversion import Conversion, uncoded
from .load import load, open_folder
from .original import original_of
from .record import is_ours
from .report import Report
from .save import require_free, save
from .verify import Check, verify

__all__ = [
    "Check",
    "Conversion",
    "Report",
    "is_ours",
    "load",
    "open_folder",
    "original_of",
    "require_free",
    "save",
    "uncoded",
    "verify",
]
