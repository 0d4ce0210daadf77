"""Families across input widths in dense blocks, beside families of one shape and layers on their own.

    python benchmarks/dense_families.py DATA

The layers of a dense block read growing concatenations: the first channels of a wide layer's input are the input of a
narrow one. So they can share one basis of input patches, each the columns of its own width. Real-ESRGAN, 18 dense
blocks of five layers, is fitted in three ways at equal parameters: each kernel as a matrix times a basis of its own,
times one basis for the same layer of all blocks, and times one for the five layers of a block. Every basis is fitted by
L-BFGS with the matrices solved for, from the singular vectors of the stacked kernels. Prints the relative error of the
layers' outputs, the mean over 90 layers, on patches of 64 parts of DATA/imagenet/calibration_diverse.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from commands import table
from torch import Tensor, nn

from kdna_convert.core.linalg import minimize
from kdna_convert.inputs.data import batches, open_images
from kdna_convert.inputs.models import load_model, override

SHARES = (0.5, 0.35, 0.25)
ITERATIONS = 40
PARTS, PATCHES = 64, 432  # of each part; 16 for each of the 1,728 columns of the widest layer


@dataclass(frozen=True)
class Member:
    """A layer: its kernel (out, n) and the moment (n, n) of its patches, whose first columns are those of a block."""

    kernel: Tensor
    moment: Tensor

    @property
    def energy(self) -> float:
        return float(((self.kernel @ self.moment) * self.kernel).sum())


def blocks_of(net: nn.Module, images: Tensor) -> list[list[Member]]:
    """The five layers of every dense block."""
    seen: dict[str, Tensor] = {}
    hooks = []
    generator = torch.Generator().manual_seed(0)

    def adding(name: str) -> object:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            patches = F.unfold(inputs[0], 3, padding=1)
            drawn = torch.randint(patches.shape[2], (PATCHES,), generator=generator)
            rows = patches[:, :, drawn].transpose(1, 2).flatten(0, 1)
            seen[name] = seen.get(name, 0) + rows.T @ rows / (PATCHES * len(images))

        return add

    widest = [name for name, _ in net.named_modules() if name.endswith("conv5")]
    for name in widest:
        hooks.append(net.get_submodule(name).register_forward_pre_hook(adding(name)))  # type: ignore[arg-type]
    with torch.no_grad():
        for part in images.split(8):
            net(part)
    for hook in hooks:
        hook.remove()
    return [[_member(net, f"{name[:-1]}{place}", seen[name]) for place in range(1, 6)] for name in widest]


def _member(net: nn.Module, name: str, moment: Tensor) -> Member:
    kernel = net.get_submodule(name).weight.detach().flatten(1).double()  # type: ignore[operator,union-attr]
    n = kernel.shape[1]
    own = moment[:n, :n].double()
    return Member(kernel, own + 1e-6 * own.diagonal().mean() * torch.eye(n))


def rank_at(family: Sequence[Member], share: float) -> int:
    """The rank at which a family stores this share of its parameters."""
    width = max(member.kernel.shape[1] for member in family)
    outputs = sum(len(member.kernel) for member in family)
    dense = sum(member.kernel.numel() for member in family)
    return max(1, int(share * dense / (width + outputs)))


def family_error(family: Sequence[Member], rank: int) -> float:
    """The sum over members of the relative output error, with the best shared basis (rank, widest input)."""
    width = max(member.kernel.shape[1] for member in family)
    widest = next(member.moment for member in family if len(member.moment) == width)
    scale = widest.diagonal().sqrt()
    stacked = torch.cat([F.pad(m.kernel, (0, width - m.kernel.shape[1])) / m.energy**0.5 for m in family])
    start = torch.linalg.svd(stacked * scale, full_matrices=False).Vh[:rank]  # basis of patches / scale
    if len(start) < rank:
        return 0.0  # every kernel is exact

    def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        basis, total, pull = point[0] * scale, 0.0, torch.zeros_like(point[0])
        for member in family:
            n = len(member.moment)
            own = basis[:, :n]
            on = own @ member.moment
            gram = on @ own.T
            gram += 1e-9 * gram.diagonal().mean() * torch.eye(rank)
            cross = member.kernel @ on.T
            outputs = torch.linalg.solve(gram, cross.T).T
            total += 1 - float((outputs * cross).sum()) / member.energy
            rest = outputs @ own - member.kernel
            pull[:, :n] += 2 * outputs.T @ (rest @ member.moment) / member.energy
        return total, [pull * scale]

    fitted = minimize(error, [start], ITERATIONS)
    return error(fitted)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    given = parser.parse_args()
    checkpoint = given.data / "checkpoints" / "realesrgan_x4plus_anime.safetensors"
    loaded = load_model("examples/realesrgan.py:x4plus_anime", checkpoint=str(checkpoint))
    config = override(loaded.data, crop_mode="middle")
    images = open_images(given.data / "imagenet" / "calibration_diverse", config, limit=PARTS, seed=0)
    inputs = torch.cat([each for each, _ in batches(images, 16)])
    blocks = blocks_of(loaded.model.eval(), inputs)
    layers = [member for block in blocks for member in block]
    ways = {
        "a basis for each layer": [[member] for member in layers],
        "one for the same layer of all blocks": [list(same) for same in zip(*blocks, strict=True)],
        "one for the layers of a block": blocks,
    }
    lines = []
    for way, families in ways.items():
        begun, errors = time.process_time(), []
        for share in SHARES:
            total = sum(family_error(family, rank_at(family, share)) for family in families)
            errors.append(f"{total / len(layers):.4f}")
            print(way, share, errors[-1], file=sys.stderr, flush=True)
        lines.append([way, *errors, f"{(time.process_time() - begun) / 60:.1f}"])
    print(table(("basis", *(f"{share:.0%}" for share in SHARES), "CPU minutes"), lines))


if __name__ == "__main__":
    main()
