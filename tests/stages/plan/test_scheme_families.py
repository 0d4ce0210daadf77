"""The families that each scheme forms, from the recipe to the folder, on a net whose layers agree in part."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.choices import Database
from kdna_convert.core.specs import from_json
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.derive import fold
from kdna_convert.network.folder import verify
from kdna_convert.schemes import SCHEMES

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = torch.randn((16, 3, 10, 10), generator=torch.Generator().manual_seed(0))


class SharingNet(nn.Module):
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


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SharingNet()


def recipe(scheme: str, **more: Any) -> Recipe:
    options = OPTIONS.get(scheme, {})
    return Recipe(scheme=scheme, options=options, fit={"sweeps": 2}, **more)  # type: ignore[arg-type]


def test_every_scheme_that_shares_is_here() -> None:
    assert {*SHARE, "kerneldna"} == {name for name, kind in SCHEMES.items() if kind.shares}


def formed(net: nn.Module, scheme: str, by: str, file: Path) -> list[frozenset[str]]:
    """The families of the database, whichever of them a budget would choose."""
    rules = recipe(scheme, families={"by": by})
    kdna.plan(net, recipe=rules, data=IMAGES, target_params=0.8, database=file)
    return [frozenset(choice.family.members) for choice in from_json(Database, file.read_bytes()).choices]


@pytest.fixture(scope="module")
def alike(net: nn.Module) -> nn.Module:
    """The net with b a noisy copy of a, and d one of c."""
    net, noise = copy.deepcopy(net), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for source, target in (("a", "b"), ("c", "d")):
            kernel = net.get_submodule(source).weight
            error = 0.05 * kernel.std() * torch.randn(kernel.shape, generator=noise)
            net.get_submodule(target).weight.copy_(kernel + error)
    return net


@every_sharing
@pytest.mark.parametrize("by", ["group", "gain"])
def test_families_are_as_large_as_the_scheme_can_share_where_sharing_pays(
    scheme: str, by: str, alike: nn.Module, tmp_path: Path
) -> None:
    families = formed(alike, scheme, by, tmp_path / "database.json")
    assert sorted(map(sorted, families)) == sorted(map(sorted, SHARE[scheme]))


@every_sharing
def test_families_by_cluster_divide_what_can_share_by_likeness(scheme: str, alike: nn.Module, tmp_path: Path) -> None:
    families = formed(alike, scheme, "cluster", tmp_path / "database.json")
    assert sorted(name for family in families for name in family) == sorted(frozenset().union(*SHARE[scheme]))
    assert all(any(family <= whole for whole in SHARE[scheme]) for family in families)
    assert set(families) != SHARE[scheme]
    assert any({"c", "d"} <= family for family in families)
    if SHARE[scheme] is INPUTS:
        assert set(families) == {frozenset(names) for names in (["a", "b"], ["up"], ["c", "d"], ["down"], ["point"])}


@every_sharing
@pytest.mark.parametrize("budget", [{"target_params": 0.7}, {"target_bytes": "28 kB"}])
def test_shared_families_are_saved_verified_and_loaded(
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
    families = {frozenset(family.members) for family in plan.families}
    assert {frozenset(["a", "b", "up"]), frozenset(["c", "d", "down"])} <= families
