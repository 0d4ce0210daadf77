"""What a net costs, exactly: parameters, bytes of its file, multiply-adds of one image. Milliseconds: benchmark.py."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.filesize import file_size
from ..core.specs import Totals
from .inference import device_of, evaluating
from .stored import stored_specs

# What torch's own users write: a dense checkpoint says nothing about itself but this.
DENSE_METADATA = {"format": "pt"}


def totals(model: nn.Module, example: Tensor, metadata: Mapping[str, str] | None = None) -> Totals:
    """The net as it stands. `example` is a batch of at least one input; `metadata` what the file says about itself.

    A parameter with several names counts once. MACs are per image and as the net runs here: a derived layer runs dense,
    and making its weight is not counted, because a folded net does not.
    """
    params = sum(parameter.numel() for parameter in model.parameters())
    size = file_size(stored_specs(model), DENSE_METADATA if metadata is None else metadata)
    return Totals(params, size, macs(model, example))


def original_bytes(model: nn.Module) -> int:
    """The file of a net that was not converted: what shares of its bytes are shares of."""
    return file_size(stored_specs(model), DENSE_METADATA)


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of one image in convolutions and matrix products, by torch's FlopCounterMode (two flops each)."""
    counter = FlopCounterMode(display=False)
    with evaluating(model), counter:
        model(example[:1].to(device_of(model)))
    return int(counter.get_total_flops()) // 2
