"""What each size of each family costs, remembered: a plan asks for hundreds of prices, some several times. No torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...core.choices import Choice, Database
from ...core.filesize import ITEM_BYTES
from .budget import Kind
from .costs import family_cost


@dataclass(frozen=True)
class Prices:
    """The prices of a database in the unit of `kind`. One object serves any number of budgets.

    Attributes:
        database: The families.
        kind: What is counted.
        known: The costs that were asked for, by the number of the family and its size.
        data: Of each family by its number: its elements, or their bytes, as a polynomial of the size, by the power.
        headers: Bytes of a family's entries in the file's header, by its number and the digits of its size.
    """

    database: Database
    kind: Kind
    known: dict[tuple[int, int | None], int] = field(default_factory=dict)
    data: dict[int, Counter[int]] = field(default_factory=dict)
    headers: dict[tuple[int, int], int] = field(default_factory=dict)

    def cost(self, number: int, size: int | None) -> int:
        """What a family costs alone, as costs.family_cost computes it; None: dense."""
        if (number, size) not in self.known:
            stores = size and self.kind in ("params", "bytes")
            self.known[number, size] = self._stored(number, size or 0) if stores else self._cost(number, size)
        return self.known[number, size]

    def price(self, number: int, size: int) -> int:
        """How much more a family costs than its dense layers."""
        return self.cost(number, size) - self.cost(number, None)

    def _cost(self, number: int, size: int | None) -> int:
        return family_cost(self.database, self.database.choices[number], size, self.kind)

    def _stored(self, number: int, size: int) -> int:
        """The parameters or bytes of the tensors that a family stores."""
        if number not in self.data:
            self.data[number] = _polynomial(self.database.choices[number], self.kind)
        data: int = sum(factor * size**power for power, factor in self.data[number].items())
        if self.kind == "params":
            return data
        digits = number, len(str(size))
        if digits not in self.headers:
            self.headers[digits] = self._cost(number, size) - data
        return self.headers[digits] + data


def _polynomial(choice: Choice, kind: Kind) -> Counter[int]:
    """By power of the size: the elements that a family stores, or their bytes."""
    terms: Counter[int] = Counter()
    for part in (choice.layout.shared, *choice.layout.adapters):
        for letter, shape in part.items():
            factor = 1 if kind == "params" else ITEM_BYTES["I16" if letter in choice.layout.indices else choice.dtype]
            for axis in shape:
                if axis != choice.size:
                    factor *= int(choice.family.options[axis]) if isinstance(axis, str) else axis
            terms[sum(axis == choice.size for axis in shape)] += factor
    return terms
