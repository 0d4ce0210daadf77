"""Five fine-tunes of one net: what they take one by one, and with shared tensors.

    python benchmarks/variants.py near
    python benchmarks/variants.py far

The bundled net is trained on five altered sets of the digits: `near` has other contrast, a gradient behind the digit
and noise, `far` turned, mirrored, inverted, noisy and moved digits. Each way of WAYS converts the five nets to so many
bytes in all, as a share of the five originals. A row has the bytes of the five folders, those of the first folder with
the updates of `kdna diff` to the four others, and means over the five test sets: top-1, and the share of answers that
agree with the fine-tune. Rows that the file has are not measured again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from commands import Row, append, machine, rows, table
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.tensorfile import load_tensors
from kdna_convert.inputs.digits import WEIGHTS, digits, digits_net

RESULTS = Path(__file__).parent / "results" / "variants.jsonl"
SHARES = ("1/10", "1/20")
COUNT = 5
COLUMNS = ("all five", "one more", "top-1", "agreement")
Altered = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Kind:
    """How the sets of a kind are altered, and how the net is trained on them."""

    altered: Altered
    epochs: int
    rate: float


def near(images: Tensor, number: int) -> Tensor:
    """Other contrast, a gradient behind the digit, and noise."""
    generator = torch.Generator().manual_seed(number)
    contrast = 0.6 + 0.8 * torch.rand(1, generator=generator)
    down, across = torch.randn(2, generator=generator)
    line = torch.linspace(-1, 1, 8)
    noise = torch.randn(images.shape, generator=generator)
    return contrast * images + 0.5 * (down * line[:, None] + across * line) + 0.3 * noise


def far(images: Tensor, number: int) -> Tensor:
    """Another task: turned by 90 degrees, mirrored, inverted, noisy, moved by two pixels."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(number))
    moved = images.roll((2, -2), (2, 3))
    return (images.rot90(1, (2, 3)), images.flip(3), -images, images + 0.7 * noise, moved)[number]


KINDS = {"near": Kind(near, 5, 0.02), "far": Kind(far, 8, 0.05)}


@dataclass(frozen=True)
class FineTune:
    """A trained net, the images to convert it with, and its test set."""

    net: nn.Module
    images: Tensor
    test: Tensor
    labels: Tensor


def fine_tune(kind: Kind, number: int) -> FineTune:
    """The bundled net, trained on one set."""
    images, labels = digits("train")
    images = kind.altered(images, number)
    net = digits_net()
    net.load_state_dict(load_tensors(WEIGHTS)[0])
    optimizer = torch.optim.SGD(net.train().parameters(), kind.rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    generator, steps = torch.Generator().manual_seed(number), len(images) // 64
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, kind.epochs * steps)
    for _ in range(kind.epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(64)[:steps]:
            optimizer.zero_grad()
            F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    test, test_labels = digits("test")
    return FineTune(net.eval(), images, kind.altered(test, number), test_labels)


Conversions = Sequence[kdna.Conversion]
Way = Callable[[Sequence[FineTune], str], Conversions]


def by_recipe(recipe: str) -> Way:
    """Each net alone, at this share of its own bytes."""
    return lambda nets, share: [
        kdna.convert(one.net, recipe=recipe, data=one.images, target_bytes=share) for one in nets
    ]


def together(nets: Sequence[FineTune], share: str) -> Conversions:
    """All nets at this share of their bytes together."""
    return kdna.bank([one.net for one in nets], data=[one.images for one in nets], target_bytes=share)


def later(nets: Sequence[FineTune], share: str) -> Conversions:
    """Four nets with shared tensors, and the fifth with theirs, as a fine-tune that comes later."""
    first = kdna.bank([one.net for one in nets[:-1]], data=[one.images for one in nets[:-1]], target_bytes=share)
    return [*first, *kdna.bank(nets[-1].net, shared=first[0], data=nets[-1].images)]


def in_eight_bits(nets: Sequence[FineTune], share: str) -> Conversions:
    """All nets at three times this share, then with numbers of 8 bits. Equal tensors stay equal."""
    return [kdna.code(one, codec="int8") for one in together(nets, f"3/{share.removeprefix('1/')}")]


WAYS: dict[str, Way] = {
    "alone, accurate": by_recipe("accurate"),
    "alone, smallest": by_recipe("smallest"),
    "bank": together,
    "bank, the fifth later": later,
    "bank, int8": in_eight_bits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--shares", nargs="+", default=list(SHARES))
    given = parser.parse_args()
    known = {(row["kind"], row["way"], row["share"]) for row in rows(given.results)}
    asked = [(way, share) for share in given.shares for way in given.ways if (given.kind, way, share) not in known]
    if asked:
        nets = [fine_tune(KINDS[given.kind], number) for number in range(COUNT)]
        for way, share in asked:
            append(given.results, {"kind": given.kind, "way": way, "share": share, **measured(nets, WAYS[way], share)})
    print(summary(rows(given.results), given.kind))


def summary(found: Sequence[Row], kind: str) -> str:
    """kB of five nets, and of one more, and their means over the test sets; the smaller share as `smaller`."""
    named = {
        "alone, accurate": "one by one, `accurate`",
        "bank": "`kdna bank`",
        "bank, the fifth later": "four by `kdna bank`, the fifth `--shared`",
        "bank, int8": "`kdna bank`, then int8",
        "alone, smallest": "one by one, `smallest` (entropy-coded)",
    }
    own = [row for row in found if row["kind"] == kind and "error" not in row]
    lines = []
    for row in sorted(own, key=lambda row: list(named).index(row["way"])):
        name = named[row["way"]] if row["share"] == SHARES[0] else "the same, smaller"
        size, more = smallest_delivery(row)
        lines.append([name, f"{size / 1e3:.1f}", f"{more / 1e3:.1f}", f"{row['top1']:.2f}", f"{row['agreement']:.2f}"])
    return table([f"{kind} (original top-1 {own[0]['original_top1']})", *COLUMNS], lines)


def smallest_delivery(row: Row) -> tuple[float, float]:
    """Bytes of all nets, as folders or as one folder with updates, and of one more of the same kind."""
    if row["folders"] <= row["with_updates"]:
        return row["folders"], row["folders"] / COUNT
    updates = row["with_updates"] - row["folders"] / COUNT
    return row["with_updates"], updates / (COUNT - 1)


def measured(nets: Sequence[FineTune], way: Way, share: str) -> dict[str, object]:
    """The bytes and the accuracy of one way."""
    began = time.perf_counter()
    try:
        conversions = way(nets, share)
    except kdna.KdnaError as error:
        return {"error": str(error)}
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as place:
        folders = [kdna.save(conversion, Path(place) / str(n)) for n, conversion in enumerate(conversions)]
        sizes = [(folder / "model.safetensors").stat().st_size for folder in folders]
        updates = [kdna.diff(folders[0], folder, Path(place) / f"{folder.name}.update").bytes for folder in folders[1:]]
    found = [
        (answers(done.model, one.test), answers(one.net, one.test), one.labels)
        for done, one in zip(conversions, nets, strict=True)
    ]
    return {
        "folders": sum(sizes),
        "with_updates": sizes[0] + sum(updates),
        "originals": sum(conversion.plan.original.bytes for conversion in conversions),
        "top1": _mean([_share(own == labels) for own, _, labels in found]),
        "agreement": _mean([_share(own == before) for own, before, _ in found]),
        "original_top1": _mean([_share(before == labels) for _, before, labels in found]),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }


@torch.no_grad()
def answers(net: nn.Module, images: Tensor) -> Tensor:
    return net(images).argmax(1)


def _share(right: Tensor) -> float:
    return 100 * float(right.double().mean())


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 2)


if __name__ == "__main__":
    main()
