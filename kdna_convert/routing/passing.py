"""What the routers of one group hand to each other within one forward pass.

# Note [Within one pass]
# A router that needs what another has worked out on the same batch finds it in an object that both hold and that
# nn.Module does not see. What is left there hangs on the batch's graph, so that gradients reach the router that left
# it; whoever reads it last drops it, and a copy or a pickle of the net begins without it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Passing(Generic[T]):
    """One value, by the place of the router that left it (Note [Within one pass]).

    A router that runs again begins a new pass, in which nothing is left yet: so nothing goes from one batch to the
    next, also where a net's layers run in another order than they are listed in.
    """

    left: T | None = None
    by: int = -1
    ran: frozenset[int] = frozenset()

    def enter(self, place: int) -> None:
        """The router of this place begins to run."""
        if place in self.ran:
            self.left, self.ran = None, frozenset()
        self.ran |= {place}

    def leave(self, place: int, value: T | None) -> None:
        self.left, self.by = value, place

    def __getstate__(self) -> dict[str, object]:
        return {}
