"""The exact size of a net: parameters, bytes of its file, multiply-adds of one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.filesize import file_size
from ..core.specs import Totals
from .inference import device_of, evaluating
from .stored import DTYPES, stored_specs

# The metadata of an ordinary checkpoint in safetensors.
DENSE_METADATA = {"format": "pt"}


def totals(model: nn.Module, example: Tensor, metadata: Mapping[str, str] | None = None) -> Totals:
    """The size of a net as it is.

    A parameter with several names counts once. A derived layer counts as dense; computing its weight does not count,
    since a folded net does not do it.

    Args:
        model: The net.
        example: A batch of at least one input.
        metadata: That of the file; None is that of an ordinary checkpoint.
    """
    params = sum(parameter.numel() for parameter in model.parameters())
    size = file_size(stored_specs(model), DENSE_METADATA if metadata is None else metadata)
    return Totals(params, size, macs(model, example))


def original_bytes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> int:
    """Bytes of the file of an original, which shares of bytes refer to. `dtypes`: of its tensors, before float32."""
    specs = stored_specs(model)
    return file_size(
        [replace(spec, dtype=DTYPES[dtypes[spec.name]]) if spec.name in dtypes else spec for spec in specs],
        DENSE_METADATA,
    )


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of one image in convolutions and matrix products, by torch's FlopCounterMode (two flops each)."""
    counter = FlopCounterMode(display=False)
    with evaluating(model), _frozen(model), counter:
        model(example[:1].to(device_of(model)))
    return int(counter.get_total_flops()) // 2


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient: the counter fails for a module that is handed a view of one that does."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
