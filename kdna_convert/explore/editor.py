"""What the page offers for a layer, and what is typed there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.choices import Database
from ..core.errors import PlanError
from ..core.shown import shown
from ..core.specs import Plan
from ..stages.plan.edits import Edit, Offered, offers_of
from .words import stored_text


def editor_of(layer: str, database: Database, plan: Plan | None, edits: Sequence[Edit]) -> dict[str, Any]:
    """What is offered for a layer of the unedited database, and what becomes of it now."""
    offers = offers_of(database, layer)
    family = next((one for one in plan.families if layer in one.members), None) if plan else None
    held = next((one for one in edits if layer in one.layers), None)
    members = list(family.members) if family else list(held.layers) if held else [layer]
    reason = next(one.reason for one in (plan or database).layers if one.name == layer)
    return {
        "place": [one.name for one in database.layers].index(layer),
        "layer": layer,
        "name": shown(layer),
        "family": members,
        "state": stored_text(family, held, reason, bool(offers), plan is not None),
        "offers": [_shown_offer(offer, held) for offer in offers],
        "chosen": _chosen(offers, family.scheme if family else None, dict(family.options) if family else {}),
    }


def typed_size(name: str, size: object) -> int | None:
    """A size as it was typed. Raises PlanError KD514 if it is no whole number."""
    text = "" if size is None else str(size).strip()
    try:
        return int(text) if text else None
    except ValueError:
        raise PlanError("KD514", f"The {name} must be a whole number.") from None


def _shown_offer(offer: Offered, held: Edit | None) -> dict[str, Any]:
    fixed = held.size if held is not None and held.way == offer.way else None
    return {
        "text": offer.way.text,
        "size": offer.size,
        "smallest": offer.smallest,
        "limit": offer.limit,
        "fixed": fixed,
    }


def _chosen(offers: tuple[Offered, ...], scheme: str | None, options: dict[str, Any]) -> int:
    """The place of the way that the plan has chosen, 0 for a dense layer."""
    for place, offer in enumerate(offers):
        if offer.way.scheme == scheme and dict(offer.way.options) == {
            k: v for k, v in options.items() if k != offer.size
        }:
            return place
    return 0
