"""The interface of a repair step."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

from .net_pair import BlockProgress, NetPair


class Step(Protocol):
    """The interface of a repair step: a frozen dataclass whose fields are the recipe's options. Derive from it.

    The laws that each step obeys are in tests/stages/repair/test_step_laws.py.

    Attributes:
        name: The step's name in recipes and reports.
    """

    name: ClassVar[str]

    @abstractmethod
    def run(self, nets: NetPair, begin: int, progress: BlockProgress) -> dict[str, str]:
        """Change `nets.converted` in place.

        Args:
            nets: The original and the converted net, and the calibration images.
            begin: How many layers (or blocks) are done. A resumed run skips them.
            progress: To be called after every layer, as `progress(layers done, layers in all)`.

        Returns:
            The layers that the step skipped, each with the KD1xx code of the reason. The key "" stands for the whole
            step, which then changed nothing.
        """
