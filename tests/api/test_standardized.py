"""Nets of standardizing layers: what is predicted of a layer is what it does, derived, folded, stored and reloaded."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import noise
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.errors import PlanError
from kdna_convert.core.specs import Family, ModelRef, Plan, Totals
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.network.derive import derive_empty, derived_layers, fold
from kdna_convert.network.folder import standalone_loader
from kdna_convert.stages.analyze.collect import Sampling, collect
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.convert.fit import convert
from kdna_convert.stages.export import EXPORTS, write_export

MEMBERS = ("body.0", "body.2", "body.4")
IMAGES = noise(24)


class Net(nn.Module):
    """Three layers of one kind, without normalization, which would hide a wrong scale."""

    def __init__(self, kind: Any = StdConv2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        convs = [kind(8, 8, 3, stride=stride, bias=True) for stride in (1, 2, 1)]
        self.body = nn.Sequential(*(part for conv in convs for part in (conv, nn.ReLU())))
        self.fc = nn.Linear(8, 5)
        self.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


def net(kind: Any = StdConv2d) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Net(kind)
        for module in made.body[::2]:
            nn.init.normal_(module.weight, 0.5, 2.0)
            if hasattr(module, "gain"):
                nn.init.uniform_(module.gain, -1.0, 2.0)
    return made.eval()


def plain() -> Net:
    return net(lambda *args, **options: nn.Conv2d(*args, padding=1, **options))


def errors(original: nn.Module, converted: nn.Module) -> dict[str, float]:
    """The relative output error of each member, on the inputs that it has in the original."""
    error_of: dict[str, float] = {}

    def see(name: str) -> Any:
        def hook(module: Any, args: tuple[Tensor], output: Tensor) -> None:
            other = converted.get_submodule(name)
            bias = module.bias.view(-1, 1, 1)
            error_of[name] = float((output - other(*args)).square().sum() / (output - bias).square().sum())

        return hook

    handles = [original.get_submodule(name).register_forward_hook(see(name)) for name in MEMBERS]
    with torch.no_grad():
        original(IMAGES)
    for handle in handles:
        handle.remove()
    return error_of


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("cp", {"rank": 6}),
        ("tucker", {"rank": 4}),
        ("codebook", {"rank": 6}),
        ("kerneldna", {"parent": "medoid", "start": "lstsq", "channel": True}),
    ],
)
@pytest.mark.parametrize("kind", [None, StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame])
def test_the_predicted_error_of_a_layer_is_that_of_its_output(kind: Any, scheme: str, options: dict[str, Any]) -> None:
    original = plain() if kind is None else net(kind)
    layers = survey(original, IMAGES[:1])
    moments = collect(original, layers, [IMAGES], sampling=Sampling(positions=None))
    moments = {name: replace(own, count=0) for name, own in moments.items()}
    plan = Plan(ModelRef("net"), (Family(scheme, MEMBERS, options),), layers, Totals(0, 0, 0), Totals(0, 0, 0))
    converted, (fit,) = convert(original, plan, moments, sweeps=3)
    assert max(fit.errors.values()) > 0.1
    assert errors(original, converted) == pytest.approx(fit.errors, rel=0.02)
    assert errors(original, fold(copy.deepcopy(converted))) == pytest.approx(fit.errors, rel=0.02)


@pytest.mark.usefixtures("quick_predictions")
@pytest.mark.parametrize("kind", [StdConv2d, ScaledStdConv2d])
def test_every_way_of_loading_gives_one_net(kind: Any, tmp_path: Path) -> None:
    recipe = Recipe(scheme="cp", fit={"sweeps": 3}, repair=({"name": "refit"},))  # type: ignore[arg-type]
    original = net(kind)
    conversion = kdna.convert(original, recipe=recipe, data=IMAGES, target_params=0.6)
    (refit,) = conversion.report.repair
    assert refit.kept
    assert not refit.left_out
    folder = kdna.save(conversion, tmp_path / "out")
    assert not [check for check in kdna.verify(folder, model=net(kind)) if not check.ok]
    with torch.no_grad():
        expected = conversion.model(IMAGES)
        assert torch.equal(kdna.load(folder, model=net(kind))(IMAGES), expected)
        nets = [kdna.load(folder, model=net(kind), folded=True)]
        for state in (
            standalone_loader.state_dict(folder),
            load_file(write_export(EXPORTS["merged"], conversion, tmp_path / "merged.safetensors").file),
        ):
            nets.append(net(kind))
            nets[-1].load_state_dict(state, strict=True)
        for loaded in nets:
            assert type(loaded.body[0]) is kind
            torch.testing.assert_close(loaded(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_a_folder_from_before_stores_the_weight_that_is_standardized() -> None:
    """Plans without the field describe the stored weight: such a net computes what it did."""
    original = net()
    layers = tuple(replace(layer, standardized=None) for layer in survey(original, IMAGES[:1]))
    moments = collect(original, layers, [IMAGES])
    plan = Plan(ModelRef("net"), (Family("cp", MEMBERS, {"rank": 6}),), layers, Totals(0, 0, 0), Totals(0, 0, 0))
    converted, _ = convert(original, plan, moments, sweeps=1)
    for derived in derived_layers(converted).values():
        assert torch.equal(derived(), derived.scheme.expand(*derived.tensors(), derived.shape))


@pytest.mark.parametrize("how", [(0.0, 1.0), (1e-6, -1.0), (1e-6, float("nan")), (float("inf"), 1.0)])
def test_a_plan_that_standardizes_by_impossible_numbers_is_refused(how: tuple[float, float]) -> None:
    layers = tuple(replace(layer, standardized=how) for layer in survey(net(), IMAGES[:1]))
    plan = Plan(ModelRef("net"), (Family("cp", MEMBERS, {"rank": 6}),), layers, Totals(0, 0, 0), Totals(0, 0, 0))
    with pytest.raises(PlanError, match=r"KD503: body\.0: the plan standardizes"):
        derive_empty(net(), plan)


def test_a_plan_that_standardizes_a_plain_layer_is_refused() -> None:
    layers = tuple(replace(layer, standardized=(1e-6, 1.0)) for layer in survey(plain(), IMAGES[:1]))
    plan = Plan(ModelRef("net"), (Family("cp", MEMBERS, {"rank": 6}),), layers, Totals(0, 0, 0), Totals(0, 0, 0))
    with pytest.raises(PlanError, match=r"KD503: body\.0: the plan standardizes the weight of a Conv2d"):
        derive_empty(plain(), plan)


def test_assigning_the_weight_of_a_converted_layer_refits_the_kernel_that_it_runs() -> None:
    original = net()
    layers = survey(original, IMAGES[:1])
    moments = collect(original, layers, [IMAGES])
    family = Family("lowrank", MEMBERS[:1], {"rank": 8})
    plan = Plan(ModelRef("net"), (family,), layers, Totals(0, 0, 0), Totals(0, 0, 0))
    converted, _ = convert(original, plan, moments, sweeps=1)
    layer, other = converted.get_submodule("body.0"), net().get_submodule("body.0")
    other.weight.data = 3 * layer.weight.detach().flip(0)
    layer.weight = other.weight.detach()
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(layer(x), other(x), rtol=1e-3, atol=1e-3)
