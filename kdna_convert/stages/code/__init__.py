"""Code a net in a given number of bytes: quantize its tensors before the `entropy` codec (../codecs) packs them.

feedback_rounding.py rounds one matrix, factors.py handles the tensors of a family, row_costs.py the scale of rows,
sensitivity.py what errors cost. sequential.py goes through a net layer by layer, estimated_sizes.py estimates the
bytes, search.py finds the quantization step for them.
"""

from __future__ import annotations

from .search import CodedNet, code_to_size
from .sensitivity import Sensitivity, sensitivity_of

__all__ = ["CodedNet", "Sensitivity", "code_to_size", "sensitivity_of"]
