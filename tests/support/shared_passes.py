"""Passes over images by one process or, launched by torchrun with `-m support.shared_passes FOLDER OUT`, by two."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from support.tiny import SIZE, net
from torch import Tensor, nn

from kdna_convert.core.errors import KdnaError
from kdna_convert.core.processes import number, process_group
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import Inputs, Reading, open_images
from kdna_convert.stages.analyze.collect import collect
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.evaluate.accuracy import evaluate
from kdna_convert.stages.evaluate.outputs import Batch

# How many images each batch has: an odd number of batches, fewer than processes, uneven ones, more than CKA looks at.
BATCHES = {"odd": [8, 8, 8, 8, 5], "one": [7], "uneven": [1, 9, 2, 30], "many": [150, 90, 150]}


class Counted:
    """A decoder that counts the images it decodes."""

    def __init__(self, decode: Any) -> None:
        self.decode, self.finish, self.calls = decode, decode.finish, 0

    def __call__(self, file: Any) -> Tensor:
        self.calls += 1
        decoded: Tensor = self.decode(file)
        return decoded


def passes(folder: Path) -> dict[str, Any]:
    """Moments, evaluations and errors of the tiny net, by the name of the batches."""
    torch.manual_seed(0)
    model = net().eval()
    other = copy.deepcopy(model)
    torch.nn.init.normal_(other.get_parameter("fc.bias"), std=0.1)
    layers = survey(model, torch.zeros(1, 3, SIZE, SIZE))
    results: dict[str, Any] = {}
    for name, sizes in BATCHES.items():
        batches = list(_labeled(sizes))
        results[name] = {
            "moments": collect(model, layers, [images for images, _ in batches], gradients="pairs"),
            "evaluation": figures(model, batches, other),
        }
    images = open_images(folder, DataConfig(input_size=(3, SIZE, SIZE)))
    source: Any = images.source
    source.decode = Counted(source.decode)
    reading = Reading(images, 4)
    results["folder"] = {
        "moments": collect(model, layers, Inputs(reading), gradients="pairs"),
        "evaluation": figures(model, reading, other),
    }
    images.gather_skipped()
    results["folder"] |= {"skipped": images.skipped, "decoded": source.decode.calls}
    sick = [images for images, _ in _labeled([4, 4, 4])]
    sick[1][0] = torch.nan  # of two processes, the second one's
    for name, work in {
        "collect": lambda: collect(model, layers, sick),
        "evaluate": lambda: evaluate(model, sick),
    }.items():
        try:
            work()
        except KdnaError as error:
            results[name] = error.code
    return results


def figures(model: nn.Module, batches: Iterable[Batch], original: nn.Module) -> dict[str, Any]:
    results = asdict(evaluate(model, batches, original=original))
    assert not results.pop("skipped")  # which the caller adds
    return results


def _labeled(sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    for size in sizes:
        yield torch.randn(size, 3, SIZE, SIZE, generator=draws), torch.randint(0, 5, (size,), generator=draws)


if __name__ == "__main__":
    with process_group(torch.device("cpu")):
        torch.save(passes(Path(sys.argv[1])), f"{sys.argv[2]}/{number()}.pt")
