"""Values that the routers of one group pass to each other within one forward pass.

# Note [Within one pass]
# A router that needs what another one has computed on the same batch finds it in an object that both hold and that
# nn.Module does not register. The value is part of the batch's autograd graph, so that gradients reach the router that
# computed it. The last reader drops it, and a copy or a pickle of the net starts without it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class ForwardState(Generic[T]):
    """One value, and the place of the router that stored it (Note [Within one pass]).

    A router that runs a second time begins a new pass without a value. So no value reaches the next batch, even if the
    layers of a net do not run in the order in which they are listed.
    """

    value: T | None = None
    place: int = -1
    ran: frozenset[int] = frozenset()

    def enter(self, place: int) -> None:
        """Register that the router at this place begins to run."""
        if place in self.ran:
            self.value, self.ran = None, frozenset()
        self.ran |= {place}

    def store(self, place: int, value: T | None) -> None:
        """Replace the value; None drops it."""
        self.value, self.place = value, place

    def __getstate__(self) -> dict[str, object]:
        return {}
