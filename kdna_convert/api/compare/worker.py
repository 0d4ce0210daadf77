"""One tool in a process of its own: `python -m kdna_convert.api.compare FOLDER`, which child.py starts.

Whatever the tool prints, leaks, leaves in torch's global state or dies of stays in here. The folder holds task.pkl,
images.pt and, for an original that has no name, net.pt; made.pt or problem.txt is added to it.
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
from .task import Candidate, Made, Task, count, written

TASK, IMAGES, NET, MADE, PROBLEM = "task.pkl", "images.pt", "net.pt", "made.pt", "problem.txt"


def make(net: nn.Module, images: Tensor, task: Task) -> Made:
    """The tool's net, counted, and its second one where the peer asks for that."""
    peer = PEERS[task.peer]
    began = time.perf_counter()
    plain = counted(peer.tool().compress(net, images, task), images)
    seconds = time.perf_counter() - began
    if not (peer.renorm and has_statistics(plain.net)):
        return Made(plain, None, seconds)
    began = time.perf_counter()
    renormed = reestimate(copy.deepcopy(plain.net), images)
    return Made(plain, renormed, seconds, time.perf_counter() - began)


def counted(made: Candidate, images: Tensor) -> Candidate:
    """The same with every count filled in; counting multiply-adds also shows that the net answers at all."""
    made.net.eval()
    return replace(
        made,
        params=count(made.net) if made.params is None else made.params,
        bytes=written(made.net) if made.bytes is None else made.bytes,
        macs=macs(made.net, images[:1].clone()) if made.macs is None else made.macs,
    )


def main(folder: Path) -> None:
    """Reads the task, writes what came of it; an exception of the tool becomes a line of text."""
    task: Task = pickle.loads((folder / TASK).read_bytes())
    images: Tensor = torch.load(folder / IMAGES, mmap=True)
    try:
        if task.model is None:
            net: nn.Module = torch.load(folder / NET, weights_only=False)
        else:
            net = load_any(task.model, task.checkpoint, task.inputs).model
        torch.save(make(net.eval(), images, task), folder / MADE)
    except KdnaError as error:
        (folder / PROBLEM).write_text(str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the tool is not ours: it may raise, or exit, on anything
        first = next(iter(str(error).strip().splitlines()), "")
        (folder / PROBLEM).write_text(f"{type(error).__name__}: {first}" if first else type(error).__name__)
