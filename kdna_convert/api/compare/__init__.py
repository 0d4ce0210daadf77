"""`kdna compare`: the same net and the same images through kdna and through the tools one would use instead.

peers.py lists the tools, tools/ holds a file for each kind, worker.py runs one in a process of its own, comparing.py
measures what they made. The tools are the real ones; one that is not installed, crashes or hangs is a row that says so.
"""

from .comparing import compare
from .peers import PEERS
from .rows import Comparison, ComparisonRow

__all__ = ["PEERS", "Comparison", "ComparisonRow", "compare"]
