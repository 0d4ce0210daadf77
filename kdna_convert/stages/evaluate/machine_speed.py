"""The machine's speed at large convolutions and matrix products, measured in a fraction of a second."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from .cost_model import Speed

# Short rounds, so that some of them are not interrupted on a busy machine.
ROUNDS = 20


def machine_speed(device: torch.device) -> Speed:
    """Time a 3x3 convolution and a matrix product, the best of the rounds."""
    x, kernel = torch.ones(2, 64, 28, 28, device=device), torch.ones(64, 64, 3, 3, device=device)
    matrix = torch.ones(512, 512, device=device)
    convolution = _best(lambda: F.conv2d(x, kernel, padding=1), device)
    return Speed(
        2 * 2 * 64 * 64 * 9 * 28**2 / convolution,
        2 * 512**3 / _best(lambda: matrix @ matrix, device),
        torch.get_num_threads(),
    )


def _best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest round."""
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):  # the first one warms up
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
    return max(min(times[1:]), 1e-9)
