"""Runs of several processes, as torchrun launches them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from support.places import ROOT, TESTS


def torchrun(module: str, *arguments: Any, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """A module in several gloo processes of one thread each; `accelerate launch --cpu` starts one without MPI."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(TESTS)])
    command = [*launch, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
