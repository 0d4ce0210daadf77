"""Coding a net in a given number of bytes: what becomes of its tensors before a codec (../codecs) sees them.

rounding.py is the arithmetic of one matrix, factors.py that of a family's shared tensors, sequential.py goes through a
net layer by layer, search.py finds the step that meets the size. Only `entropy` needs any of it.
"""

from __future__ import annotations

from .search import Coded, code_to_size
from .sequential import Felt, felt_by

__all__ = ["Coded", "Felt", "code_to_size", "felt_by"]
