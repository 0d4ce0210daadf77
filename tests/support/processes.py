"""Runs in processes of their own: of a script, or of several as torchrun launches them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from support.places import ROOT, TESTS


def run_script(text: str) -> tuple[int, str]:
    """The exit status of a Python script, below 0 if a signal ended it, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])}
    command = [sys.executable, "-W", "ignore", "-c", text]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=300, check=False)
    return done.returncode, done.stdout


def torchrun(module: str, *arguments: Any, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """A module in several gloo processes of one thread each; `accelerate launch --cpu` starts one without MPI."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(TESTS)])
    command = [*launch, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
