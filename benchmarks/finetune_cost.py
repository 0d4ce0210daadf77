"""A training step of a converted net beside the dense net's: seconds and peak memory, in one run, taking turns.

    python benchmarks/finetune_cost.py FOLDER [--batch 128] [--rounds 5]

dense: the original, trained as one trains a net (all parameters, batch norm in training mode, cross-entropy).
adapters, shared: the converted net as `kdna finetune` trains it, the teacher's forward pass left out and stated by
itself. Both get images in the memory layout that is the faster one. Memory is what the forward pass keeps for the
backward pass, each storage once, and gradients and Adam's two tensors of every free parameter. A row for
results/finetune_cost.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from commands import Row, append, machine, table
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from kdna_convert.network.blocks import find_blocks
from kdna_convert.network.folder import open_folder, original_of
from kdna_convert.stages.finetune.folded_norms import folded_norms, norm_pairs, plain_convolutions
from kdna_convert.stages.finetune.trainable import trainable

RESULTS = Path(__file__).parent / "results" / "finetune_cost.jsonl"
LABELS = {
    "dense": "the dense net, all parameters, norms in training mode",
    "adapters": "the converted net, adapters",
    "shared": "the converted net, adapters and shared",
    "teacher, forward": "the teacher, forward only, added to every step",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    conversion = open_folder(given.folder, trust_code=True)
    teacher = original_of(conversion).model.eval()
    x = torch.randn(given.batch, *conversion.data.input_size, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    pairs = norm_pairs(teacher, conversion.model, find_blocks(teacher, plain_convolutions(teacher), x[:2]), x[:2])
    dense = copy.deepcopy(teacher).train()
    students = {}
    for part in ("adapters", "shared"):
        students[part] = copy.deepcopy(conversion.model).eval()
        trainable(students[part], part)
    nets = {"dense": dense, **students}
    steps: dict[str, Callable[[], object]] = {name: lambda net=net: step(net, x, pairs) for name, net in nets.items()}
    steps["teacher, forward"] = lambda: forward(teacher, x, pairs)
    seconds = {name: min(times) for name, times in timed(steps, given.rounds).items()}
    memory = {name: step_bytes(net, x, pairs) for name, net in nets.items()}
    row = {
        "folder": Path(given.folder).name,
        "batch": given.batch,
        "pairs": len(pairs),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "bytes": memory,
        **machine(),
    }
    print(summary([append(given.results, row)]))


def summary(found: Sequence[Row]) -> str:
    """The last row: time relative to the dense net's step, and memory."""
    row, lines = found[-1], []
    for name, value in row["seconds"].items():
        kept = row["bytes"].get(name)
        share = "" if kept is None else f"{kept / 2**20:.0f} MiB ({kept / row['bytes']['dense']:.2f})"
        lines.append([LABELS[name], f"{value / row['seconds']['dense']:.2f}", share])
    return table(["step of", "time, ratio", "kept for the backward pass, gradients, Adam"], lines)


def timed(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in every round, the nets taking turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, run in steps.items():
            began = time.perf_counter()
            run()
            seconds[name] += [time.perf_counter() - began] if number else []
    return seconds


def step(net: nn.Module, x: Tensor, pairs: tuple[tuple[str, str], ...]) -> None:
    with nullcontext() if net.training else folded_norms(net, pairs):
        net.zero_grad()
        net(x).square().mean().backward()


def forward(net: nn.Module, x: Tensor, pairs: tuple[tuple[str, str], ...]) -> None:
    with torch.no_grad(), folded_norms(net, pairs):
        net(x)


def step_bytes(net: nn.Module, x: Tensor, pairs: tuple[tuple[str, str], ...]) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    storages: dict[int, int] = {}
    held = []  # a storage that is let go may be taken again

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with nullcontext() if net.training else folded_norms(net, pairs), saved_tensors_hooks(keep, lambda saved: saved):
        net(x)
    kept = sum(size for pointer, size in storages.items() if pointer not in own)
    return kept + sum(3 * parameter.nbytes for parameter in net.parameters() if parameter.requires_grad)


if __name__ == "__main__":
    main()
