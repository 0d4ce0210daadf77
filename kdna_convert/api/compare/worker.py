"""Run one tool in its own process: `python -m kdna_convert.api.compare FOLDER`, started by child.py.

So output, memory leaks, changes of torch's global state and crashes of a tool do not affect the others. The folder
holds tool_run.pkl, images.pt and, if the original is a module, net.pt. The process writes made.pt or problem.txt to it.
"""

from __future__ import annotations

import copy
import pickle
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.errors import KdnaError
from ...network.totals import macs
from ..nets import load_any
from .peers import PEERS
from .reestimate_norms import has_statistics, reestimate
from .tool_run import Candidate, Made, ToolRun, count, written_bytes

TOOL_RUN, IMAGES, NET, MADE, PROBLEM = "tool_run.pkl", "images.pt", "net.pt", "made.pt", "problem.txt"


def make(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Made:
    """Run the tool, count its net, and make the second net if the peer has one (Peer.renorm)."""
    peer = PEERS[tool_run.peer]
    began = time.perf_counter()
    plain = counted(peer.tool().compress(net, images, tool_run), images)
    seconds = time.perf_counter() - began
    if not (peer.renorm and has_statistics(plain.net)):
        return Made(plain, None, seconds)
    began = time.perf_counter()
    renormed = reestimate(copy.deepcopy(plain.net), images)
    return Made(plain, renormed, seconds, time.perf_counter() - began)


def counted(candidate: Candidate, images: Tensor) -> Candidate:
    """The candidate with all counts filled in. Counting multiply-adds runs the net, so a broken net fails here."""
    net = candidate.net.eval()
    return replace(
        candidate,
        params=count(net) if candidate.params is None else candidate.params,
        bytes=written_bytes(net) if candidate.bytes is None else candidate.bytes,
        macs=macs(net, images[:1].clone()) if candidate.macs is None else candidate.macs,
    )


def main(folder: Path) -> None:
    """Read the tool_run, run it, and write the result; an exception of the tool becomes one line of text."""
    tool_run: ToolRun = pickle.loads((folder / TOOL_RUN).read_bytes())
    images: Tensor = torch.load(folder / IMAGES, mmap=True)
    try:
        if tool_run.model is None:
            net: nn.Module = torch.load(folder / NET, weights_only=False)
        else:
            net = load_any(tool_run.model, tool_run.checkpoint, tool_run.inputs).model
        torch.save(make(net.eval(), images, tool_run), folder / MADE)
    except KdnaError as error:
        (folder / PROBLEM).write_text(str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a foreign tool may raise anything, or exit
        first = next(iter(str(error).strip().splitlines()), "")
        (folder / PROBLEM).write_text(f"{type(error).__name__}: {first}" if first else type(error).__name__)
