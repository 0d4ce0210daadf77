"""The tools that `kdna compare` measures. `PEERS` is the table, `Tool` the interface of the modules in tools/."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from torch import Tensor, nn

from ...core.comparison import Axis
from ...core.errors import PlanError
from .tool_run import Candidate, ToolRun

EXTRA = "pip install 'kdna-convert[compare]'"
NNCODEC_EXTRA = "pip install 'kdna-convert[compare,nncodec]'"


class Tool(Protocol):
    """The interface of every module in tools/. Its laws are in tests/api/test_peer_laws.py.

    A module is imported only in the process that runs it, since its library may not be installed.
    """

    def compress(self, net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
        """Make the net smaller.

        Args:
            net: The original net, in eval mode. It may be changed in place.
            images: Unlabeled calibration images (N, C, H, W).
            tool_run: Which layers may change, and how large the whole net may be.
        """
        ...


@dataclass(frozen=True)
class Peer:
    """One tool at one setting.

    Attributes:
        title: Its name in tables.
        tool: Imports and returns its module of tools/.
        option: The setting of the module, such as the number of bits.
        axes: The kinds of budget that it supports. Empty for a tool with only one size.
        needs: The libraries that it imports.
        install: The command that installs them.
        renorm: Whether a second net is measured, with batch-norm statistics re-estimated on the calibration images. It
            is for tools that use no data.
    """

    title: str
    tool: Callable[[], Tool]
    option: str = ""
    axes: tuple[Axis, ...] = ()
    needs: tuple[str, ...] = ()
    install: str = EXTRA
    renorm: bool = False

    @property
    def missing(self) -> str | None:
        """Which libraries are not installed, and how to install them; None if all are."""
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else None


def aimet() -> Tool:
    from .tools import aimet

    return aimet


def nncodec() -> Tool:
    from .tools import nncodec

    return nncodec


def onnxruntime() -> Tool:
    from .tools import onnxruntime

    return onnxruntime


def own() -> Tool:
    from .tools import own

    return own


def pruning() -> Tool:
    from .tools import pruning

    return pruning


def rounding() -> Tool:
    from .tools import rounding

    return rounding


def tensorly() -> Tool:
    from .tools import tensorly

    return tensorly


PEERS: dict[str, Peer] = {
    "fp16": Peer("fp16", rounding, "16"),
    "int8": Peer("int8, rounded", rounding, "8"),
    "int4": Peer("int4, rounded", rounding, "4"),
    "onnxruntime": Peer("onnxruntime int8", onnxruntime, needs=("onnxruntime", "onnx", "onnxscript")),
    "svd": Peer("SVD, data-aware", own, "lowrank", axes=("params",), renorm=True),
    "cp": Peer("tensorly CP", tensorly, "cp", axes=("params",), needs=("tltorch",), renorm=True),
    "tucker": Peer("tensorly Tucker-2", tensorly, "tucker", axes=("params",), needs=("tltorch",), renorm=True),
    "aimet": Peer("AIMET spatial SVD", aimet, axes=("params",), needs=("aimet_torch",), renorm=True),
    "pruning": Peer("torch-pruning", pruning, axes=("params",), needs=("torch_pruning",), renorm=True),
    "nncodec": Peer("NNCodec", nncodec, axes=("bytes",), needs=("nncodec",), install=NNCODEC_EXTRA),
    "kdna": Peer("kdna", own, axes=("params", "bytes")),
}


def peers_of(names: Sequence[str] | None) -> list[str]:
    """The peers with these names, in the order of the table; None: all. Raises PlanError KD508."""
    for name in names or ():
        if name not in PEERS:
            close = difflib.get_close_matches(name, PEERS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(PEERS)}"
            raise PlanError("KD508", f"no peer {name!r}; {hint}")
    return [name for name in PEERS if names is None or name in names]
