"""The converted folder, and the only way to it.

folder.py writes and reads it, record.py is what it says about itself, verify.py checks that, rebuild.py builds the
architecture it names, original.py the net it came from, card.py is its model card, atomic.py makes it appear whole.
"""

from __future__ import annotations

from .folder import Conversion, export_merged, load, open_folder, require_free, save, uncoded
from .original import original_of
from .record import is_ours
from .report import Report
from .verify import Check, verify

__all__ = [
    "Check",
    "Conversion",
    "Report",
    "export_merged",
    "is_ours",
    "load",
    "open_folder",
    "original_of",
    "require_free",
    "save",
    "uncoded",
    "verify",
]
