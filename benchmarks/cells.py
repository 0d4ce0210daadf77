"""Whether a warehouse's cells are better mixed by few of its cells than by all: k-means, sparse coding, or the SVD.

    python benchmarks/cells.py examples/cifar_resnet.py:resnet56 --checkpoint W.safetensors --data IMAGES --keep 0.25

Takes the 3x3 family that stores most. A cell mixed by k of K stores k coefficients and k indices of log2 K bits,
counted as that part of a 32-bit parameter. One of K with a coefficient is k-means with a gain (and a sign). The bank is
learned by orthogonal matching pursuit and least squares in turn, under the mean moment of the cells; the coefficients
are then solved for under the moment itself, a filter at a time. The figures are in docs/explanation/schemes.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from families import largest, parser
from schemes import fit, within
from torch import Tensor

from kdna_convert.core.linalg import Target, dense, fit_error, mean_diagonal, weighted_energy
from kdna_convert.core.specs import product
from kdna_convert.schemes.warehouse import cells_of


def pursue(bank_kc: Tensor, cells_xc: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit of every cell: which rows of the bank (x by count), and their coefficients."""
    gram_kk, pull_xk = bank_kc @ bank_kc.T, cells_xc @ bank_kc.T
    size_k = gram_kk.diagonal().clamp_min(1e-12).sqrt()
    chosen = torch.zeros(len(cells_xc), 0, dtype=torch.long)
    left_xk, value = pull_xk.clone(), cells_xc.new_zeros(len(cells_xc), 0)
    for _ in range(count):
        nearest = (left_xk.abs() / size_k).scatter(1, chosen, -1.0).argmax(1, keepdim=True)
        chosen = torch.cat([chosen, nearest], 1)
        normal = gram_kk[chosen[:, :, None], chosen[:, None, :]] + 1e-9 * torch.eye(chosen.shape[1])
        value = torch.linalg.solve(normal, pull_xk.gather(1, chosen))
        left_xk = pull_xk - torch.zeros_like(pull_xk).scatter(1, chosen, value) @ gram_kk
    return chosen, value


def learn(cells_xc: Tensor, size: int, count: int, rounds: int) -> tuple[Tensor, Tensor]:
    """A bank of `size` rows for cells that each mix `count` of them, and which each mixes."""
    generator = torch.Generator().manual_seed(0)
    bank_kc = cells_xc[torch.randperm(len(cells_xc), generator=generator)[:size]]
    for _ in range(rounds):
        bank_kc = bank_kc / bank_kc.norm(dim=1, keepdim=True).clamp_min(1e-12)
        chosen, value = pursue(bank_kc, cells_xc, count)
        codes_xk = cells_xc.new_zeros(len(cells_xc), size).scatter(1, chosen, value)
        normal_kk = codes_xk.T @ codes_xk
        normal_kk.diagonal().add_(1e-6 * float(normal_kk.diagonal().mean()))
        bank_kc = torch.linalg.solve(normal_kk, codes_xk.T @ cells_xc)
    return bank_kc, pursue(bank_kc, cells_xc, count)[0]


def left_by(bank_kc: Tensor, chosen_xj: Tensor, aim: Target, blocks: int) -> float:
    """The output error once every filter's coefficients are solved for together."""
    out, count = len(aim.kernel_on), chosen_xj.shape[1]
    cells_objc = bank_kc[chosen_xj].view(out, blocks, count, -1)
    rows = torch.einsum("objc,bd->objdc", cells_objc, torch.eye(blocks).double()).reshape(out, blocks * count, -1)
    normal = rows @ dense(aim.moment) @ rows.transpose(1, 2)
    normal.diagonal(dim1=1, dim2=2).add_(1e-9 * normal.diagonal(dim1=1, dim2=2).mean())
    value = torch.linalg.solve(normal, rows @ aim.cross_on[:, :, None])
    return fit_error((value.transpose(1, 2) @ rows)[:, 0], aim)


def sparse(aims: Sequence[Target], cell: int, size: int, count: int) -> tuple[float, float]:
    """The parameters stored, an index as a part of one, and the relative weighted error."""
    blocks = aims[0].shape[1] // cell
    parts = [cells_of(aim, blocks) for aim in aims]
    metric_cc = torch.stack([dense(part.moment) / mean_diagonal(part.moment) for part in parts]).mean(0)
    values, vectors = torch.linalg.eigh(metric_cc)
    half_cc = (vectors * values.clamp_min(1e-9).sqrt()) @ vectors.T
    whitened = [
        part.kernel_on * (aim.weight * mean_diagonal(aim.moment)) ** 0.5 for part, aim in zip(parts, aims, strict=True)
    ]
    bank_kc, chosen = learn((torch.cat(whitened) @ half_cc).float(), size, count, rounds=12)
    bank_kc = bank_kc.double() @ torch.linalg.inv(half_cc)
    pairs = zip(chosen.split([len(part.kernel_on) for part in parts]), aims, strict=True)
    error = sum(aim.weight * left_by(bank_kc, own, aim, blocks) for own, aim in pairs) / weighted_energy(aims)
    return len(chosen) * count * (1 + math.log2(size) / 32) + bank_kc.numel(), error


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--keep", type=float, default=0.25)
    args = options.parse_args()
    _, aims = largest(args)
    shapes = [aim.shape for aim in aims]
    whole = sum(map(product, shapes))
    print("| cell | mixing | bank | params | error |\n| ---: | --- | ---: | ---: | ---: |")
    for cell, banks in ((1, (256, 1024, 2048)), (16, (144, 288, 512)), (64, (128, 192))):
        scheme = within("warehouse", {"cell": cell}, shapes, args.keep * whole)
        if scheme is not None:
            print(f"| {cell} | svd | {scheme.rank} | {args.keep:.0%} | {fit(scheme, aims, 60):.4f} |", flush=True)
        for size in banks:
            cells = whole / (cell * product(shapes[0][2:]))
            count = int((args.keep * whole - size * cell * product(shapes[0][2:])) / cells / (1 + math.log2(size) / 32))
            if 0 < count < size:
                stored, error = sparse(aims, cell, size, count)
                mixing = "k-means, gain" if count == 1 else f"sparse, {count}"
                print(f"| {cell} | {mixing} | {size} | {stored / whole:.1%} | {error:.4f} |", flush=True)


if __name__ == "__main__":
    main()
