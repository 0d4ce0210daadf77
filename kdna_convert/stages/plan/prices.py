"""What each size of each family costs, remembered: a plan asks for the same prices several times. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...core.choices import Database
from .budget import Kind
from .costs import family_cost


@dataclass(frozen=True)
class Prices:
    """The prices of a database in the unit of `kind`. One object serves any number of budgets.

    Attributes:
        database: The families.
        kind: What is counted.
        known: The costs that were asked for, by the number of the family and its size.
    """

    database: Database
    kind: Kind
    known: dict[tuple[int, int | None], int] = field(default_factory=dict)

    def cost(self, number: int, size: int | None) -> int:
        """What a family costs alone, None: dense."""
        if (number, size) not in self.known:
            choice = self.database.choices[number]
            self.known[number, size] = family_cost(self.database, choice, size, self.kind)
        return self.known[number, size]

    def price(self, number: int, size: int) -> int:
        """How much more a family costs than its dense layers."""
        return self.cost(number, size) - self.cost(number, None)
