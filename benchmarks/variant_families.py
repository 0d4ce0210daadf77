"""How the layers of five fine-tunes should share, at equal parameters of all five.

    python benchmarks/variant_families.py near
    python benchmarks/variant_families.py far

The fine-tunes are those of variants.py. Their eight equal 3x3 layers are fitted in four ways: the layers of each net
alone; all layers of all nets in one family; one family for each layer, of all nets; and with the shared tensors of the
first net, which were fitted on it alone. No repair. Prints the size option, the share of the parameters that is shared,
the relative output error (the mean over the 40 layers), and the mean agreement with the fine-tunes on their test sets.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from typing import Any

from commands import table
from torch import Tensor, nn
from variants import COUNT, KINDS, FineTune, answers, fine_tune

from kdna_convert.api.cached_moments import moments_of
from kdna_convert.api.job import open_job
from kdna_convert.core.linalg import Target
from kdna_convert.core.specs import Family, product
from kdna_convert.schemes import Scheme, Tensors, concrete, make
from kdna_convert.stages.analyze.targets import output_error, targets
from kdna_convert.stages.convert.variant import fitted_adapter

LAYERS = tuple(f"blocks.{block}.conv{conv}" for block in (0, 1, 3, 4) for conv in (1, 2))
FORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cp", {}),
    ("basis", {}),
    ("atoms", {}),
    ("codebook", {"gain": "filter"}),
    ("codebook", {"gain": "filter", "codes": 2}),
)
SWEEPS = 100
Member = tuple[int, str]  # the number of the net, and the layer
NETS = range(COUNT)
WAYS: dict[str, list[list[Member]]] = {
    "alone": [[(net, layer) for layer in LAYERS] for net in NETS],
    "together": [[(net, layer) for net in NETS for layer in LAYERS]],
    "by layer": [[(net, layer) for net in NETS] for layer in LAYERS],
    "first's": [[(net, layer) for net in NETS for layer in LAYERS]],
}


def stored(scheme: Scheme, families: Sequence[Sequence[Target]]) -> tuple[int, int]:
    """The parameters of the families, and how many of them are shared."""
    layouts = [scheme.layout([target.shape for target in family]) for family in families]
    shared = sum(product(concrete(shape, scheme)) for one in layouts for shape in one.shared.values())
    own = [shape for one in layouts for adapter in one.adapters for shape in adapter.values()]
    return shared + sum(product(concrete(shape, scheme)) for shape in own), shared


def largest(name: str, options: dict[str, Any], families: Sequence[Sequence[Target]], room: float) -> Scheme | None:
    """The scheme at the largest size that the room allows; None if there is none."""
    scheme = make(name, options)
    low, high = scheme.smallest, scheme.limit([target.shape for target in families[0]])
    if stored(make(name, {**options, scheme.size: low}), families)[0] > room:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        fits = stored(make(name, {**options, scheme.size: middle}), families)[0] <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return make(name, {**options, scheme.size: low})


def fitted(scheme: Scheme, family: Sequence[Target], way: str) -> tuple[Tensors, list[Tensors]]:
    if way != "first's":
        return scheme.share(family, seed=0, sweeps=SWEEPS)
    shared, starts = scheme.share(family[: len(LAYERS)], seed=0, sweeps=SWEEPS)
    later = zip(starts * (COUNT - 1), family[len(LAYERS) :], strict=True)
    return shared, [*starts, *(fitted_adapter(scheme, shared, start, target) for start, target in later)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.35, 0.2])
    given = parser.parse_args()
    nets = [fine_tune(KINDS[given.kind], number) for number in NETS]
    aims = {(number, layer): target for number, one in enumerate(nets) for layer, target in targets_of(one).items()}
    room = sum(target.kernel_on.numel() for target in aims.values())
    found = []
    for share in given.shares:
        for name, options in FORMS:
            for way, families in WAYS.items():
                own = [[aims[member] for member in family] for family in families]
                scheme = largest(name, options, own, share * room)
                if scheme is not None:
                    print(share, scheme, way, file=sys.stderr, flush=True)
                    found.append([f"{name} {options.get('codes', '')}", way, share, *measured(nets, scheme, own, way)])
    print(table(["scheme", "families", "parameters", "size", "shared", "error", "agreement"], found))


def targets_of(one: FineTune) -> dict[str, Target]:
    job = open_job(one.net, "shared-cp", one.images, {}, None)
    return dict(zip(LAYERS, targets(one.net, Family("cp", LAYERS), moments_of(job, None, None)), strict=True))


def measured(nets: Sequence[FineTune], scheme: Scheme, own: Sequence[Sequence[Target]], way: str) -> list[str]:
    """The size, the share that is shared, the error and the agreement of one way."""
    converted, errors = [copy.deepcopy(one.net) for one in nets], []
    for members, family in zip(WAYS[way], own, strict=True):
        shared, adapters = fitted(scheme, family, way)
        for (number, layer), adapter, target in zip(members, adapters, family, strict=True):
            errors.append(output_error(scheme, shared, adapter, target) / target.energy)
            replace_weight(converted[number].get_submodule(layer), scheme.expand(shared, adapter, target.shape))
    whole, common = stored(scheme, own)
    same = [
        (answers(net, one.test) == answers(one.net, one.test)).double().mean()
        for net, one in zip(converted, nets, strict=True)
    ]
    size = f"{scheme.size} {getattr(scheme, scheme.size)}"
    return [size, f"{common / whole:.2f}", f"{sum(errors) / len(errors):.4f}", f"{100 * float(sum(same)) / COUNT:.2f}"]


def replace_weight(layer: nn.Module, kernel: Tensor) -> None:
    layer.load_state_dict({**layer.state_dict(), "weight": kernel.float()})


if __name__ == "__main__":
    main()
