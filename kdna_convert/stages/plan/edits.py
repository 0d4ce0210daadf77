"""Edit what a plan chooses from: layers that stay dense, schemes that are forced, sizes that are fixed.

A layer that leaves a family, or is held in it at a size of its own, divides the family. The tensors of each part are
exact. Its predicted error is the family's, in proportion to its parameters: at an equal size a part has at most about
that, since its tensors are shared by fewer layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...core.choices import Choice, Database
from ...core.errors import PlanError
from ...core.specs import Family, Layer
from ...schemes import scheme_of
from ..analyze.targets import shapes_of
from .families import no_saving


@dataclass(frozen=True)
class Way:
    """A scheme with its options, but without the size that a budget buys."""

    scheme: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """`codebook, gain filter, codes 2`."""
        return ", ".join([self.scheme, *(f"{name} {value}" for name, value in self.options if value is not None)])


@dataclass(frozen=True)
class Edit:
    """What is asked for some layers.

    Attributes:
        layers: Their names.
        way: How they are stored; None: dense.
        size: The size of their families; None: the plan chooses it.
    """

    layers: tuple[str, ...]
    way: Way | None = None
    size: int | None = None


@dataclass(frozen=True)
class Offered:
    """A way that a layer may be stored, and the sizes that its families have."""

    way: Way
    size: str
    smallest: int
    limit: int


def offers_of(database: Database, layer: str) -> tuple[Offered, ...]:
    """The ways that a layer may be stored, each once, with all sizes that some family of it has."""
    found: dict[Way, Offered] = {}
    for choice in database.choices:
        if layer in choice.family.members:
            own = Offered(way_of(choice), choice.size, choice.smallest, choice.limit)
            known = found.get(own.way, own)
            smallest, limit = min(known.smallest, own.smallest), max(known.limit, own.limit)
            found[own.way] = replace(own, smallest=smallest, limit=limit)
    return tuple(found.values())


def way_of(choice: Choice) -> Way:
    return Way(choice.family.scheme, tuple(choice.family.options.items()))


def with_edits(database: Database, edits: Sequence[Edit]) -> Database:
    """The database in which every plan keeps the edits. Of several edits of a layer the last one holds.

    Raises:
        PlanError: KD514 for a layer that the net does not have or cannot store so.
    """
    wanted = {name: edit for edit in edits for name in edit.layers}
    if not wanted:
        return database
    layers = {layer.name: layer for layer in database.layers}
    parts = [part for choice in database.choices for part in _parts(choice, wanted, database.layers)]
    choices = tuple(part for place, part in enumerate(parts) if part not in parts[:place])
    inside = {name for choice in choices for name in choice.family.members}
    for name, edit in wanted.items():
        if name not in layers:
            raise PlanError("KD514", f"the net has no layer {name}")
        if edit.way is not None and name not in inside:
            raise PlanError("KD514", _why_not(database, name, edit))
    reasons = {name: "KD101" if name in wanted else "KD109" for name in {*_members(database)} - inside}
    explained = tuple(replace(layer, reason=reasons.get(layer.name, layer.reason)) for layer in database.layers)
    return replace(database, choices=choices, layers=explained)


def _members(database: Database) -> Iterator[str]:
    return (name for choice in database.choices for name in choice.family.members)


def _parts(choice: Choice, wanted: Mapping[str, Edit], layers: Sequence[Layer]) -> Iterator[Choice]:
    """The family without the layers that are stored otherwise; and for each size that is asked for, the layers that
    are held at it, alone and with those that are free."""
    members = choice.family.members
    if not any(name in wanted for name in members):
        yield choice
        return
    free = {name for name in members if name not in wanted}
    held: dict[int | None, set[str]] = {}
    for name in members:
        if name in wanted and wanted[name].way == way_of(choice):
            held.setdefault(wanted[name].size, set()).add(name)
    yield from _part(choice, free, layers)
    for size, names in held.items():
        for kept in (names, names | free) if free else (names,):
            for part in _part(choice, kept, layers):
                if size is None or part.smallest <= size <= part.limit:
                    yield replace(part, fixed=part.fixed if size is None else size, dense=False)


def _part(choice: Choice, kept: set[str], layers: Sequence[Layer]) -> Iterator[Choice]:
    """The family of some of its members; nothing where no size of it saves anything."""
    places = [place for place, name in enumerate(choice.family.members) if name in kept]
    if not places:
        return
    family = replace(choice.family, members=tuple(choice.family.members[place] for place in places))
    if len(places) == len(choice.family.members):
        yield choice
        return
    if no_saving(family, layers) is not None:
        return
    scheme, shapes = scheme_of(family), shapes_of(family, layers)
    share = _params(family, layers) / _params(choice.family, layers)
    yield replace(
        choice,
        family=family,
        limit=max(min(scheme.limit(shapes), choice.limit), choice.smallest),
        layout=scheme.layout(shapes),
        macs=tuple(choice.macs[place] for place in places),
        latency=tuple(choice.latency[place] for place in places if choice.latency),
        points={size: error * share for size, error in choice.points.items()},
    )


def _params(family: Family, layers: Sequence[Layer]) -> int:
    return sum(layer.params for layer in layers if layer.name in family.members)


def _why_not(database: Database, name: str, edit: Edit) -> str:
    offers = offers_of(database, name)
    if not offers:
        return f"{name} cannot be converted by this recipe"
    own = [offer for offer in offers if offer.way == edit.way]
    if not own:
        ways = "; ".join(offer.way.text for offer in offers)
        return f"{name} cannot be stored as {edit.way.text if edit.way else 'dense'}: the recipe has {ways}"
    if edit.size is None:
        return f"{own[0].way.text} saves nothing at {name} alone; force it for its whole family"
    sizes = f"{own[0].smallest} to {own[0].limit}"
    return f"{name} cannot have {own[0].size} {edit.size}: its family has {sizes}, and fewer where it is divided"
