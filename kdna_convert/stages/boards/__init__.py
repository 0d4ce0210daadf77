"""Boards: what a plan takes of a device that is not at hand, computed from its profile.

layer_costs.py has the arithmetic of one layer, board_limits.py applies it to every size of every family of a plan.
"""

from __future__ import annotations

from .board_limits import BoardTarget, board_limits

__all__ = ["BoardTarget", "board_limits"]
