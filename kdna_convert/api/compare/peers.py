"""The tools that are compared. A row is all it takes to add one: its file in tools/ does the rest."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from ...core.errors import PlanError
from .rows import Axis

EXTRA = "pip install 'kdna-convert[compare]'"
NNCODEC_EXTRA = "pip install 'kdna-convert[compare,nncodec]'"


@dataclass(frozen=True)
class Peer:
    """One tool. `tool` is its module in tools/, `option` what that is told, `needs` what it imports.

    `axes` are the budgets that it can be held to, none for a tool that has but one size. With `renorm` a second net is
    measured, whose batch norms were estimated anew on the calibration images: for tools that look at no data.
    """

    title: str
    tool: str
    option: str = ""
    axes: tuple[Axis, ...] = ()
    needs: tuple[str, ...] = ()
    install: str = EXTRA
    renorm: bool = False

    @property
    def missing(self) -> str | None:
        """How to install what it needs, where that is not there."""
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else None


PEERS: dict[str, Peer] = {
    "fp16": Peer("fp16", "rounding", "16"),
    "int8": Peer("int8, rounded", "rounding", "8"),
    "int4": Peer("int4, rounded", "rounding", "4"),
    "onnxruntime": Peer("onnxruntime int8", "onnxruntime", needs=("onnxruntime", "onnx", "onnxscript")),
    "svd": Peer("SVD, data-aware", "own", "lowrank", axes=("params",), renorm=True),
    "cp": Peer("tensorly CP", "tensorly", "cp", axes=("params",), needs=("tltorch",), renorm=True),
    "tucker": Peer("tensorly Tucker-2", "tensorly", "tucker", axes=("params",), needs=("tltorch",), renorm=True),
    "aimet": Peer("AIMET spatial SVD", "aimet", axes=("params",), needs=("aimet_torch",), renorm=True),
    "pruning": Peer("torch-pruning", "pruning", axes=("params",), needs=("torch_pruning",), renorm=True),
    "nncodec": Peer("NNCodec", "nncodec", axes=("bytes",), needs=("nncodec",), install=NNCODEC_EXTRA),
    "kdna": Peer("kdna", "own", axes=("params", "bytes")),
}


def chosen(names: Sequence[str] | None) -> list[str]:
    """The peers of these names in the table's order, all of them for None. Raises PlanError KD508 for no such peer."""
    for name in names or ():
        if name not in PEERS:
            close = difflib.get_close_matches(name, PEERS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(PEERS)}"
            raise PlanError("KD508", f"no peer {name!r}; {hint}")
    return [name for name in PEERS if names is None or name in names]
