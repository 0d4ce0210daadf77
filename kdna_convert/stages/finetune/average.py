"""Exponential moving average of the trained tensors, by timm. It takes the memory of one more copy of them.

The last steps of a training fluctuate around a mean. timm's warm-up raises the decay from step to step up to the one
that was set, so that the average of a short run does not keep the initial values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from .training_state import assign, copies


class Average:
    """The moving average of `parameters`, by name. With a decay of 0 it is the parameters themselves."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.live = nn.ParameterList(parameters.values())
        self.ema = ModelEmaV3(self.live, decay, use_warmup=True) if decay else None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averages themselves, which a resumed run assigns to."""
        kept = self.live if self.ema is None else self.ema.module
        return dict(zip(self.parameters, kept.parameters(), strict=True))

    @property
    def kept(self) -> dict[str, Tensor]:
        """Copies of the averages for a saved state; empty without an average."""
        return {} if self.ema is None else copies(self.tensors)

    def follow(self, step: int) -> None:
        """Update the average after that step."""
        if self.ema is not None:
            self.ema.update(self.live, step)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside the context, the parameters of the net have the averaged values."""
        if self.ema is None:
            yield
            return
        now = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        assign(self.parameters, self.tensors)
        try:
            yield
        finally:
            assign(self.parameters, now)
