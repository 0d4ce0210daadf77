"""Runs in processes of their own: of a script, or of several as torchrun launches them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
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
    launch = ["--standalone", "--nproc-per-node", str(processes)]
    command, environment = _launch(launch, module, arguments)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def two_nodes(
    module: str, *arguments: Any, processes: int = 2, folders: tuple[Path, Path] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """A module on two "nodes" on loopback, each in a folder of its own, with gloo processes of one thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = []
    for number in range(2):
        launch = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", str(processes)]
        command, environment = _launch([*launch, "--rdzv-endpoint", endpoint], module, arguments)
        folder = None if folders is None else folders[number]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        nodes.append(subprocess.Popen(command, text=True, env=environment, cwd=folder, **pipes))
    found = []
    for node in nodes:
        out, errors = node.communicate(timeout=300)
        found.append(subprocess.CompletedProcess(node.args, node.returncode, out, errors))
    return found


def _launch(launch: list[str], module: str, arguments: tuple[Any, ...]) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(TESTS)])
    command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", module, *map(str, arguments)]
    return command, environment
