"""`kdna compare`: compare kdna with other tools on the same net, the same images and the same budgets.

peers.py lists the tools, and tools/ has one module per kind of tool. compare_tools.py starts one process per net, in
which worker.py runs a tool; evaluate_nets.py measures the nets. A tool that is not installed, crashes or hangs has a
row that says so.
"""

from ...core.comparison import Comparison, ComparisonRow
from .compare_tools import compare
from .peers import PEERS

__all__ = ["PEERS", "Comparison", "ComparisonRow", "compare"]
