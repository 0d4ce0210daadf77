"""The converted folder, and the only way to it.

conversion.py is what it stores; save.py writes and load.py reads it; record.py is its record of itself, which verify.py
checks; config.py has timm's fields, report.py what was measured, card.py the model card; trust.py decides whether
the net that it names may be built, rebuild.py builds it, original.py the net it was made from; work.py is the folder of
an unfinished run, update.py what turns one folder into another, variants.py writes those of several fine-tunes.
"""

from __future__ import annotations

from .conversion import Conversion, Origin, uncoded
from .load import load, open_folder, read_claim
from .original import original_of
from .record import is_ours
from .report import Report
from .save import require_free, save
from .trust import Claim, remember
from .update import Update, diff, patch
from .variants import SavedVariant, require_place, save_variants
from .verify import Check, verify

__all__ = [
    "Check",
    "Claim",
    "Conversion",
    "Origin",
    "Report",
    "SavedVariant",
    "Update",
    "diff",
    "is_ours",
    "load",
    "open_folder",
    "original_of",
    "patch",
    "read_claim",
    "remember",
    "require_free",
    "require_place",
    "save",
    "save_variants",
    "uncoded",
    "verify",
]
