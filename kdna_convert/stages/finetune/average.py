"""An exponential moving average of what is trained, timm's: of the free tensors alone, so that it costs them once more.

A net's last steps wander around what they average to. The average follows the tensors as fast as it can at first and by
the decay that was asked for in the end (timm's warm-up), so that a short run's is not still where it began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from .training_state import assign, copies


class Average:
    """The moving average of `parameters`, by name; with a decay of 0, the parameters themselves."""

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
        """Copies of the averages for a state; none without an average."""
        return {} if self.ema is None else copies(self.tensors)

    def follow(self, step: int) -> None:
        """Update the average after that step."""
        if self.ema is not None:
            self.ema.update(self.live, step)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The net with its averages as parameters, for as long as the context lasts."""
        if self.ema is None:
            yield
            return
        now = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        assign(self.parameters, self.tensors)
        try:
            yield
        finally:
            assign(self.parameters, now)
