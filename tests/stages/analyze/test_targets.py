"""The store of targets: what it keeps, and that what is kept is what would be made."""

from __future__ import annotations

import torch
from torch import nn

from kdna_convert.core.specs import Family
from kdna_convert.stages.analyze.moments import LayerMoments
from kdna_convert.stages.analyze.targets import TargetStore, targets

NAMES = ("0", "1", "2")


def _store(room: int) -> TargetStore:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(2, 3, 3) for _ in NAMES))
    moments = {name: LayerMoments(torch.eye(18), torch.zeros(18), 99, torch.ones(3)) for name in NAMES}
    return TargetStore(net, moments, room)


def test_a_layer_of_two_families_has_one_target_while_there_is_room_for_it() -> None:
    whole, part = Family("cp", NAMES), Family("cp", NAMES[1:])
    plenty, none = _store(10**6), _store(0)
    assert all(a is b for a, b in zip(plenty.targets(whole)[1:], plenty.targets(part), strict=True))
    assert not any(a is b for a, b in zip(none.targets(whole)[1:], none.targets(part), strict=True))
    assert not none.kept


def test_the_targets_that_were_used_last_are_kept() -> None:
    store = _store(0)
    store.room = 2 * (16 * 18**2 + 32 * 3 * 18)
    store.targets(Family("cp", NAMES))
    assert list(store.kept) == ["1", "2"]
    store.targets(Family("cp", ("0",)))
    assert list(store.kept) == ["2", "0"]


def test_a_kept_target_is_that_of_the_layer() -> None:
    store, family = _store(10**6), Family("cp", NAMES)
    for kept, made in zip(store.targets(family), targets(store.model, family, store.moments), strict=True):
        assert torch.equal(kept.cross_on, made.cross_on)
        assert kept.weight == made.weight
