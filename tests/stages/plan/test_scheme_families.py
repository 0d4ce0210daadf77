"""Which layers share under each scheme, from the recipe to the folder, on a net of layers that agree in part."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.derive import fold
from kdna_convert.network.folder import verify
from kdna_convert.schemes import SCHEMES

IMAGES = torch.randn((16, 3, 10, 10), generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Layers that agree in their inputs, in their outputs, in both, or only in the cells that they can be cut in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 8, 1)
        self.up = nn.Conv2d(8, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 16, 3, padding=1)
        self.d = nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.pretrained_cfg = {"input_size": (3, 10, 10)}

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.stem(x).relu()).relu())
        x = self.d(self.c(self.up(self.point(x.relu())).relu()).relu())
        return self.head(self.down(x.relu()).mean((2, 3)))


INPUTS = {frozenset(["a", "b", "up"]), frozenset(["c", "d", "down"]), frozenset(["point"])}
SHARE: dict[str, set[frozenset[str]]] = {
    "cp": INPUTS,
    "separable": INPUTS,
    "basis": INPUTS,
    "tucker": INPUTS,
    "output": {frozenset(["a", "b", "point", "down"]), frozenset(["up", "c", "d"])},
    "atoms": {frozenset(["a", "b", "point"]), frozenset(["c", "d"]), frozenset(["up"]), frozenset(["down"])},
    "warehouse": {frozenset(["a", "b", "up", "c", "d", "down"]), frozenset(["point"])},
    "codebook": {frozenset(["a", "b", "up", "c", "d", "down"])},
}
OPTIONS: dict[str, dict[str, Any]] = {"warehouse": {"cell": 8}}
every_sharing = pytest.mark.parametrize("scheme", SHARE)


@pytest.fixture(scope="module", autouse=True)
def hasty() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdna_convert.stages.plan.database.QUICK", 2)
        patch.setattr("kdna_convert.schemes.Scheme.probes", (0.0, 0.4, 0.75))
        yield


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def recipe(scheme: str, **more: Any) -> Recipe:
    options = OPTIONS.get(scheme, {})
    return Recipe(scheme=scheme, options=options, fit={"sweeps": 2}, **more)  # type: ignore[arg-type]


def test_every_scheme_that_shares_is_here() -> None:
    assert {*SHARE, "kerneldna"} == {name for name, kind in SCHEMES.items() if kind.shares}


@every_sharing
def test_a_database_holds_the_families_that_the_scheme_can_form(scheme: str, net: nn.Module) -> None:
    plan = kdna.plan(net, recipe=recipe(scheme, families={"by": "group"}), data=IMAGES, target_params=0.7)
    found = {frozenset(family.members) for family in plan.families}
    assert found <= SHARE[scheme], found
    assert any(len(members) > 1 for members in found)
    left = {layer.name for layer in plan.layers if layer.reason == "KD109"}
    assert all(len(members) == 1 for members in SHARE[scheme] if members & left)


@every_sharing
@pytest.mark.parametrize("by", ["gain", "cluster"])
def test_divided_families_are_parts_of_those(scheme: str, by: str, net: nn.Module) -> None:
    plan = kdna.plan(net, recipe=recipe(scheme, families={"by": by}), data=IMAGES, target_params=0.8)
    assert plan.families
    assert all(any({*family.members} <= whole for whole in SHARE[scheme]) for family in plan.families)


@every_sharing
@pytest.mark.parametrize("budget", [{"target_params": 0.7}, {"target_bytes": "28 kB"}])
def test_what_is_shared_so_is_written_verified_and_read_back(
    scheme: str, budget: dict[str, Any], net: nn.Module, tmp_path: Path
) -> None:
    conversion = kdna.convert(net, recipe=recipe(scheme), data=IMAGES, **budget)
    assert any(len(family.members) > 1 for family in conversion.plan.families)
    folder = kdna.save(conversion, tmp_path / "out")
    assert all(check.ok for check in verify(folder, model=copy.deepcopy(net)))
    assert (folder / "model.safetensors").stat().st_size == conversion.plan.planned.bytes
    again = fold(kdna.load(folder, model=copy.deepcopy(net)))
    torch.testing.assert_close(again(IMAGES), conversion.model.eval()(IMAGES), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scheme", sorted({*SHARE} - {"codebook"}))  # whose cells can be cut from either
def test_layers_that_cannot_share_are_named_when_a_rule_holds_them_together(scheme: str, net: nn.Module) -> None:
    rule = {"layers": ["stem", "d"], "scheme": scheme, "options": OPTIONS.get(scheme, {}), "family": "together"}
    odd = recipe(scheme, include=("stem",), rules=[rule])
    with pytest.raises(kdna.KdnaError, match=r"KD203: rules\.0\.family: .*cannot share between stem"):
        kdna.plan(net, recipe=odd, data=IMAGES, target_params=0.8)


def test_the_cell_of_the_recipe_decides_which_kernels_share_a_warehouse(net: nn.Module) -> None:
    wide = Recipe(scheme="warehouse", options={"cell": 16, "rank": 4}, fit={"sweeps": 2}, families={"by": "group"})  # type: ignore[arg-type]
    plan = kdna.plan(net, recipe=wide, data=IMAGES)
    found = {frozenset(family.members) for family in plan.families}
    assert {frozenset(["a", "b", "up"]), frozenset(["c", "d", "down"])} <= found
