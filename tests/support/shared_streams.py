"""Passes over a stream by one process, or by several that torchrun launches: `-m support.shared_streams DATA OUT`."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

import torch
from support.shared_passes import figures
from support.tiny import SIZE, net

from kdna_convert.core.processes import gather, number, process_group
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import Inputs, Reading, Views, open_images, shared_loader
from kdna_convert.stages.analyze.collect import collect
from kdna_convert.stages.analyze.survey import survey

CONFIG = DataConfig(input_size=(3, SIZE, SIZE))
BATCH, BATCHES = 8, 9


def passes(data: str) -> dict[str, Any]:
    """Moments, an evaluation, the first training batches of all processes, and the shards that this one opened."""
    torch.manual_seed(0)
    model = net().eval()
    other = net().eval()
    layers = survey(model, torch.zeros(1, 3, SIZE, SIZE))
    images = open_images(data, CONFIG)
    shards: Any = images.source.shards  # type: ignore[union-attr]
    opened: list[int] = []
    whole = shards.open
    shards.open = lambda shard: opened.append(shard) or whole(shard)
    reading = Reading(images, BATCH)
    moments = collect(model, layers, Inputs(reading), gradients="pairs")
    for_moments = sorted(set(opened))
    evaluation = figures(model, reading, other)
    images.gather_skipped()
    loader = shared_loader(
        Views(images, CONFIG, 0, True), BATCH, 0, begin=0, workers=0, divide=lambda dataloader: dataloader
    )
    batches = torch.stack([batch.inputs for batch in islice(loader, BATCHES)])
    loader.end()
    return {
        "moments": moments,
        "evaluation": evaluation,
        "batches": torch.cat(gather(batches), dim=1),
        "skipped": images.skipped,
        "opened": for_moments,
    }


if __name__ == "__main__":
    with process_group(torch.device("cpu")):
        torch.save(passes(sys.argv[1]), f"{sys.argv[2]}/{number()}.pt")
