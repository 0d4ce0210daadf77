"""Derived weights: laws for every scheme."""

import copy
import io

import pytest
import timm
import torch
from support.small_nets import MEMBERS, OPTIONS, Versioned, convert, fitted, images, route, small
from timm.layers import Conv2dSame, StdConv2d
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor

from kdna_convert.core.errors import FolderError, KdnaError, PlanError
from kdna_convert.core.specs import Family, Layer, ModelRef, Plan, Totals
from kdna_convert.network.derive import (
    cached,
    derive,
    derive_empty,
    derived_layers,
    factor,
    fold,
    unfactored,
)
from kdna_convert.network.patches import watch
from kdna_convert.network.stored import load_stored, stored_specs, stored_state
from kdna_convert.routing import routers
from kdna_convert.schemes import SCHEMES, make

schemes = pytest.mark.parametrize("scheme", SCHEMES)


def plan_of(net: nn.Module, *families: Family) -> Plan:
    shapes = {name: tuple(net.get_submodule(name).weight.shape) for family in families for name in family.members}
    layers = tuple(Layer(name, "Conv2d", shape) for name, shape in shapes.items())
    return Plan(ModelRef("small"), families, layers, Totals(0, 0, 0), Totals(0, 0, 0))


def close(net: nn.Module, other: nn.Module, atol: float = 1e-5) -> bool:
    with torch.no_grad():
        return torch.allclose(net(images()), other(images()), atol=atol)


def test_options_of_these_tests_cover_every_scheme() -> None:
    assert set(OPTIONS) == set(SCHEMES)


@schemes
def test_a_derived_layer_computes_what_its_scheme_expands(scheme: str) -> None:
    net = small()
    family = Family(scheme, MEMBERS, OPTIONS[scheme])
    shared, adapters = fitted(net, family)
    derive(net, family, shared, adapters)
    for name, adapter in zip(MEMBERS, adapters, strict=True):
        expected = make(scheme, OPTIONS[scheme]).expand(shared, adapter, (6, 6, 3, 3))
        torch.testing.assert_close(net.get_submodule(name).weight, expected.float())


@schemes
def test_folding_changes_no_output_and_leaves_no_trace(scheme: str) -> None:
    original, net = small(), small()
    convert(net, scheme)
    folded = fold(copy.deepcopy(net))
    assert close(net, folded, atol=0)
    assert not derived_layers(folded)
    for name, module in folded.named_modules():
        assert type(module) is type(original.get_submodule(name))
        assert module.__dict__.keys() == original.get_submodule(name).__dict__.keys()
    before, after = original.state_dict(), folded.state_dict()
    assert list(before) == list(after)
    assert all(before[key].dtype == after[key].dtype and after[key].is_contiguous() for key in before)
    small().load_state_dict(after, strict=True)


@schemes
def test_a_chain_of_plain_layers_computes_the_same(scheme: str) -> None:
    net = small()
    convert(net, scheme)
    chained = factor(copy.deepcopy(net))
    assert close(fold(net), chained, atol=1e-4)
    assert not derived_layers(chained)
    assert isinstance(chained.last, nn.Conv2d if scheme in ("kerneldna", "atoms", "codebook") else nn.Sequential)


def test_a_layer_that_costs_more_as_a_chain_is_folded() -> None:
    net = nn.Sequential(nn.Conv2d(6, 8, 1))
    convert(net, "cp", ("0",))  # rank 5: 5 x (6 + 8) against 6 x 8
    assert type(factor(net)[0]) is nn.Conv2d


@pytest.mark.parametrize("scheme", ["cp", "basis", "lowrank"])
def test_a_chain_costs_the_multiply_adds_its_scheme_says(scheme: str) -> None:
    net, sizes = small(), {}
    modules = {name: net.get_submodule(name) for name in MEMBERS}
    with watch(net, modules, lambda name, _, x, y: sizes.update({name: (x[0, 0].numel(), y[0, 0].numel())})):
        net(images(1))
    dense, chained = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with dense:
        net(images(1))
    convert(net, scheme)
    factor(net)
    with chained:
        net(images(1))
    scheme_macs = sum(make(scheme, OPTIONS[scheme]).macs((6, 6, 3, 3), *sizes[name]) for name in MEMBERS)
    dense_macs = sum(6 * 6 * 9 * sizes[name][1] for name in MEMBERS)
    assert chained.get_total_flops() // 2 == dense.get_total_flops() // 2 - dense_macs + scheme_macs


@schemes
def test_gradients_reach_every_tensor(scheme: str) -> None:
    net = small()
    convert(net, scheme)
    net(images()).square().sum().backward()
    trained = {name: p.grad for name, p in net.named_parameters() if p.is_floating_point()}
    assert len(trained) > len(MEMBERS)
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in trained.values())


@schemes
def test_assigning_a_weight_refits_the_adapter(scheme: str) -> None:
    net = small()
    convert(net, scheme)
    reachable = fold(copy.deepcopy(net)).last.weight.detach()
    shared = {k: v.clone() for k, v in derived_layers(net)["body.0"].shared.items()}
    for parameter in derived_layers(net)["last"].adapter.values():
        if parameter.is_floating_point():
            parameter.data *= 0.5
    net.last.weight = reachable
    torch.testing.assert_close(net.last.weight, reachable, atol=1e-4, rtol=1e-3)
    assert all(torch.equal(shared[k], v) for k, v in derived_layers(net)["body.0"].shared.items())


def test_the_first_member_owns_and_the_others_borrow() -> None:
    net = small()
    convert(net)
    first, second, third = derived_layers(net).values()
    assert [first.is_owner, second.is_owner, third.is_owner] == [True, False, False]
    assert second.shared is first.shared
    assert third.shared is first.shared
    assert [key for key in net.state_dict() if ".shared." in key] == ["body.0.parametrizations.weight.0.shared.V"]
    assert len(list(net.parameters())) == len({id(p) for p in net.parameters()})


def test_a_deepcopy_is_tied_to_its_own_owner() -> None:
    net = small()
    convert(net)
    replica = copy.deepcopy(net)
    before = net.last.weight.detach().clone()
    with torch.no_grad():
        derived_layers(replica)["body.0"].shared["V"].zero_()
    assert replica.last.weight.abs().max() == 0
    torch.testing.assert_close(net.last.weight, before)


def test_folding_a_copy_leaves_the_source_alive() -> None:
    net = small()
    convert(net)
    before = net(images())
    fold(copy.deepcopy(net))
    assert len(derived_layers(net)) == 3
    torch.testing.assert_close(net(images()), before)
    fold(net)
    torch.testing.assert_close(net(images()), before)


def test_folding_the_source_leaves_a_copy_alive() -> None:
    net = small()
    convert(net)
    replica = copy.deepcopy(net)
    fold(net)
    assert close(net, replica)
    assert len(derived_layers(replica)) == 3


def test_a_frozen_layer_folds_into_a_parameter() -> None:
    net = small()
    convert(net)
    net.requires_grad_(False)
    fold(net)
    assert isinstance(net.last.weight, nn.Parameter)
    assert net.last.weight.requires_grad
    assert "weight" not in net.last._buffers


@pytest.mark.parametrize("assign", [False, True])
def test_a_loaded_state_dict_keeps_the_tie(assign: bool) -> None:
    net, other = small(), small(3)
    convert(net)
    convert(other)
    other.load_state_dict(net.state_dict(), assign=assign)
    assert close(net, other)
    with torch.no_grad():
        derived_layers(other)["body.0"].shared["V"].zero_()
    assert other.last.weight.abs().max() == 0


def test_the_tie_survives_meta_and_to_empty() -> None:
    net = small()
    family = convert(net)
    with torch.device("meta"):
        empty = small()
    derive_empty(empty, plan_of(small(), family))
    empty.to_empty(device="cpu")
    empty.load_state_dict(net.state_dict())
    assert close(net, empty.eval())


def test_an_ema_updates_each_tensor_once() -> None:
    net = small()
    convert(net)
    ema = ModelEmaV3(net, decay=0.5)
    before = derived_layers(net)["body.0"].shared["V"].detach().clone()
    with torch.no_grad():
        derived_layers(net)["body.0"].shared["V"].zero_()
    ema.update(net)
    averaged = derived_layers(ema.module)
    torch.testing.assert_close(averaged["body.0"].shared["V"].detach(), before / 2)
    assert averaged["last"].shared is averaged["body.0"].shared


def test_a_feature_extractor_and_a_cut_off_head_keep_the_tie() -> None:
    net = small()
    convert(net)
    extracted = create_feature_extractor(net, ["last"])(images())["last"]
    x = nn.Sequential(*list(net.children())[:-1])(images())  # the stem and its norm without the relu between
    assert x.shape == extracted.shape
    torch.testing.assert_close(extracted, create_feature_extractor(fold(net), ["last"])(images())["last"])


def test_a_part_without_the_owner_still_works() -> None:
    net = small()
    convert(net)
    last, x = copy.deepcopy(net.last), torch.randn(1, 6, 5, 5)
    torch.testing.assert_close(last(x), net.last(x))


def test_a_state_dict_survives_torch_save() -> None:
    net, other = small(), small(5)
    convert(net)
    convert(other)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert close(net, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@schemes
def test_the_weight_follows_the_layers_dtype(scheme: str, dtype: torch.dtype) -> None:
    net = small()
    convert(net, scheme)
    net.to(dtype)
    assert net.last.weight.dtype == dtype
    assert net(images().to(dtype)).dtype == dtype
    assert {p.dtype for p in fold(net).parameters()} == {dtype}


def test_a_family_may_span_dtypes() -> None:
    net = small()
    convert(net)
    net.last.half()
    assert net.last.weight.dtype == torch.float16
    assert net.body[0].weight.dtype == torch.float32


def test_stored_tensors_are_contiguous_copies_in_the_layers_dtype() -> None:
    net = small()
    family = Family("cp", MEMBERS, {"rank": 5})
    shared, adapters = fitted(net, family)
    shared = {"V": torch.stack([shared["V"], shared["V"]], -1)[..., 0]}  # as an SVD's slices are
    derive(net, family, shared, adapters)
    given = shared["V"].clone()
    with torch.no_grad():
        derived_layers(net)["body.0"].shared["V"].zero_()
    assert torch.equal(shared["V"], given)
    for parameter in net.parameters():
        assert parameter.is_contiguous()
        assert parameter.dtype == torch.float32


def test_a_cache_belongs_to_one_model_and_ends_with_its_context() -> None:
    net, calls = small(), []
    convert(net)
    replica = copy.deepcopy(net)
    with torch.no_grad():
        derived_layers(replica)["body.0"].shared["V"].zero_()
    with cached(net), cached(replica):
        assert net.last.weight is net.last.weight
        assert replica.last.weight.abs().max() == 0
        assert net.last.weight.abs().max() > 0
        calls.append(copy.deepcopy(net))
    assert net.last.weight.requires_grad
    assert calls[0].last.weight.requires_grad


def test_linear_layers_are_derived_folded_and_chained() -> None:
    def mlp() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 9, bias=False), nn.Linear(9, 8))

    x = torch.randn(2, 5, 16)
    for scheme in ("cp", "basis"):
        net = mlp()
        convert(net, scheme, ("0", "2"))
        folded, chained = fold(copy.deepcopy(net)), factor(copy.deepcopy(net))
        torch.testing.assert_close(folded(x), net(x))
        torch.testing.assert_close(chained(x), net(x), atol=1e-4, rtol=1e-4)
        assert [type(layer) for layer in chained[0]] == [nn.Linear, nn.Linear]
        mlp().load_state_dict(folded.state_dict())


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_one_and_three_dimensions_work_alike(dims: int) -> None:
    conv, x = {1: nn.Conv1d, 3: nn.Conv3d}[dims], torch.randn(1, 4, *[6] * dims)
    net = nn.Sequential(conv(4, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 3, stride=2))
    for scheme in SCHEMES:
        replica = copy.deepcopy(net)
        convert(replica, scheme, ("0", "2"))
        expected = replica(x)
        torch.testing.assert_close(factor(copy.deepcopy(replica))(x), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(fold(replica)(x), expected)


def test_same_padding_stays_in_the_link_that_has_the_taps() -> None:
    net = nn.Sequential(Conv2dSame(3, 6, 3, stride=2), nn.ReLU(), Conv2dSame(6, 6, 5, stride=2))
    x = torch.randn(1, 3, 15, 14)
    convert(net, "cp", ("2",))
    expected = net(x)
    chained = factor(net)
    assert [type(link) for link in chained[2]] == [nn.Conv2d, Conv2dSame, nn.Conv2d]
    torch.testing.assert_close(chained(x), expected, atol=1e-4, rtol=1e-4)


def test_a_pointwise_layer_strides_in_the_first_link() -> None:
    net = nn.Sequential(nn.Conv2d(12, 24, 1, stride=2))
    convert(net, "cp", ("0",))
    x = torch.randn(1, 12, 9, 9)
    expected = net(x)
    chained = factor(net)
    assert [link.stride for link in chained[0]] == [(2, 2), (1, 1)]
    torch.testing.assert_close(chained(x), expected, atol=1e-4, rtol=1e-4)


def test_a_one_channel_layer_is_chained_too() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1))
    convert(net, "basis", ("0",))
    x = torch.randn(1, 1, 7, 7)
    expected = net(x)
    torch.testing.assert_close(factor(net)(x), expected, atol=1e-4, rtol=1e-4)


def test_grouped_and_standardized_layers_are_folded_where_others_are_chained() -> None:
    net = nn.Sequential(nn.Conv2d(6, 6, 3, groups=2, padding=1), StdConv2d(6, 6, 3, padding=1))
    convert(net, "cp", ("0",))
    convert(net, "cp", ("1",))
    x = torch.randn(1, 6, 7, 7)
    expected = net(x)
    chained = factor(net)
    assert [type(layer) for layer in chained] == [nn.Conv2d, StdConv2d]
    torch.testing.assert_close(chained(x), expected)


def test_factor_replaces_a_layer_under_all_its_names_and_at_the_root() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    convert(net, "cp", ("0",))
    chained = factor(net)
    assert chained[0] is chained[2]
    root = nn.Conv2d(4, 4, 3)
    convert(root, "cp", ("",))
    assert set(stored_state(root)) == {"U", "V", "b", "bias"}
    assert isinstance(factor(root), nn.Sequential)


def test_building_structure_draws_no_random_numbers() -> None:
    net = small()
    family = Family("cp", MEMBERS, OPTIONS["cp"])
    shared, adapters = fitted(net, family)
    state = torch.get_rng_state()
    derive(net, family, shared, adapters)
    route(net, "se")
    factor(net)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "kwargs"),  # without what makes a fresh block the identity, which would hide every error
    [("resnet18", {"zero_init_last": False}), ("mobilenetv2_050", {}), ("convnext_atto", {"ls_init_value": 1.0})],
)
def test_timm_nets_round_trip(name: str, kwargs: dict[str, object]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model(name, num_classes=7, **kwargs).eval()
    groups: dict[tuple[int, ...], list[str]] = {}
    for layer, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            groups.setdefault(tuple(module.weight.shape), []).append(layer)
    original = copy.deepcopy(net)
    members = max(groups.values(), key=len)[:3]
    family = Family("basis", tuple(members), {"rank": 16})
    kernels = [net.get_submodule(member).weight.detach() for member in members]
    shared = {"V": torch.randn(16, kernels[0][0].numel()) * 0.05}
    derive(net, family, shared, [{"U": torch.randn(len(kernel), 16) * 0.05} for kernel in kernels])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        folded = fold(copy.deepcopy(net))
        torch.testing.assert_close(folded(x), expected)
        torch.testing.assert_close(factor(net)(x), expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(original(x), expected)
    original.load_state_dict(folded.state_dict(), strict=True)


def test_an_identity_gate_folds_away_and_a_learned_one_refuses() -> None:
    net = small()
    convert(net)
    route(net, "se")
    assert close(net, fold(copy.deepcopy(net)))
    assert not routers(fold(copy.deepcopy(net)))
    with torch.no_grad():
        net.last.gate.fc2.bias.fill_(0.3)
    with pytest.raises(FolderError, match=r"KD606: last"):
        fold(net)
    assert len(derived_layers(net)) == len(routers(net)) == 3  # nothing was changed


def test_a_layer_that_depends_on_its_input_is_not_factored() -> None:
    net = small()
    convert(net)
    route(net, "se")
    with torch.no_grad():
        net.last.gate.fc2.bias.fill_(0.3)
    expected = net(images())
    torch.testing.assert_close(factor(net)(images()), expected, atol=1e-4, rtol=1e-4)
    assert isinstance(net.last, nn.Conv2d)
    assert list(routers(net)) == ["last"]


def test_stored_names_are_layer_and_letter() -> None:
    net = small()
    convert(net)
    route(net, "se")
    names = set(stored_state(net))
    assert {"body.0.V", "body.0.U", "body.0.b", "body.0.bias", "last.U", "last.b", "last.gate.fc1.weight"} <= names
    assert {"stem.weight", "norm.running_mean", "norm.num_batches_tracked"} <= names
    assert not {"last.V", "last.weight", "body.0.weight"} & names


@schemes
def test_stored_tensors_fill_an_empty_structure(scheme: str) -> None:
    net, other = small(), small(9)
    family = convert(net, scheme)
    derive_empty(other, plan_of(small(), family))
    load_stored(other, stored_state(net))
    assert close(net, other, atol=0)
    assert [(s.name, s.shape) for s in stored_specs(net)] == [(k, tuple(v.shape)) for k, v in stored_state(net).items()]


def test_a_net_with_a_version_loads_its_own_tensors() -> None:
    net, other = Versioned().eval(), Versioned().eval()
    family = convert(net)
    plan = Plan(ModelRef("x"), (family,), (), Totals(1, 1, 1), Totals(1, 1, 1))
    load_stored(derive_empty(other, plan), stored_state(net))
    assert torch.equal(other(images()), net(images()))


def test_no_scheme_stores_a_tensor_without_elements() -> None:
    net, other = small(), small()
    family = Family("kerneldna", MEMBERS, {"residual_rank": 0})
    derive(net, family, *fitted(net, family))
    derive_empty(other, plan_of(small(), family))
    assert set(stored_state(net)) == set(stored_state(other))
    assert "last.A" not in stored_state(net)


def test_stored_tensors_must_fit() -> None:
    net = small()
    convert(net)
    state = stored_state(net)
    before = net(images())
    wrong = {**state, "extra": torch.zeros(1), "last.U": torch.zeros(2, 2)}
    del wrong["stem.weight"]
    with pytest.raises(KdnaError, match=r"KD303: .*missing stem.weight, unexpected extra, last.U is \(2, 2\)"):
        load_stored(net, wrong)
    torch.testing.assert_close(net(images()), before)


def test_a_tensor_with_two_names_is_stored_once_and_stays_tied() -> None:
    def tied() -> nn.Sequential:
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(4, 4, 3))
        net[1].weight = net[0].weight
        return net

    net, other = tied(), tied()
    assert "1.weight" not in stored_state(net)
    load_stored(other, stored_state(net))
    assert other[1].weight is other[0].weight
    assert torch.equal(other[1].weight, net[0].weight)


def test_a_plan_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    net = small()
    tensors = fitted(net, Family("cp", MEMBERS, {"rank": 5}))
    for family, message in (
        (Family("cp", ("body.0", "body.2", "nowhere"), {"rank": 5}), "KD503: the model has no layer 'nowhere'"),
        (Family("cp", ("body.0", "body.2", "body.1"), {"rank": 5}), "KD503: body.1: a ReLU has no weight"),
        (Family("spline", MEMBERS), "KD503: .*no scheme 'spline'"),
    ):
        with pytest.raises(PlanError, match=message):
            derive(net, family, *tensors)
    assert not derived_layers(net)
    with pytest.raises(PlanError, match=r"KD503: stem: the plan has a kernel of shape \(6, 6, 3, 3\)"):
        derive_empty(
            net,
            Plan(
                ModelRef("x"),
                (Family("cp", ("stem",), {"rank": 1}),),
                (Layer("stem", "Conv2d", (6, 6, 3, 3)),),
                Totals(0, 0, 0),
                Totals(0, 0, 0),
            ),
        )


def test_a_weight_that_is_computed_already_is_refused() -> None:
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        net = small()
        tensors = fitted(net, Family("cp", MEMBERS, {"rank": 5}))
        wrap(net.last)
        with pytest.raises(PlanError, match="KD105: last"):
            derive(net, Family("cp", MEMBERS, {"rank": 5}), *tensors)
        assert not parametrize.is_parametrized(net.body[0])


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def with_parametrized_bias() -> nn.Module:
    net = small()
    parametrize.register_parametrization(net.last, "bias", Doubled())
    return net


@pytest.mark.parametrize("scheme", ["cp", "lowrank"])
def test_a_layer_with_a_parametrized_bias_keeps_it(scheme: str) -> None:
    net, original = with_parametrized_bias(), with_parametrized_bias()
    derived = copy.deepcopy(net)
    convert(derived, scheme)
    assert torch.equal(net(images()), original(images())), "the copy's class is its own"
    assert torch.equal(derived.last.bias, net.last.bias)
    folded, chained = fold(copy.deepcopy(derived)), factor(copy.deepcopy(derived))
    assert close(derived, folded)
    assert close(derived, chained, atol=1e-4)
    assert parametrize.is_parametrized(folded.last, "bias")
    assert folded.state_dict().keys() == original.state_dict().keys()
    loaded = with_parametrized_bias()
    loaded.load_state_dict(folded.state_dict())
    assert torch.equal(loaded(images()), folded(images()))


def test_a_chain_has_the_weight_and_the_settings_of_its_layer() -> None:
    net = small()
    convert(net, "cp")
    dense = {name: net.get_submodule(name).weight.detach() for name in MEMBERS}
    chained = factor(net)
    for name, weight in dense.items():
        chain = chained.get_submodule(name)
        assert isinstance(chain, nn.Sequential)
        torch.testing.assert_close(chain.weight, weight, atol=1e-5, rtol=1e-4)
        assert (chain.kernel_size, chain.in_channels) == ((3, 3), 6)
        assert (chain.bias is None) == (small().get_submodule(name).bias is None)


def test_a_layer_with_hooks_is_folded_instead_of_factored() -> None:
    def hooked() -> nn.Module:
        net = small()
        net.last.register_forward_hook(lambda _, args, y: 2 * y)
        net.body[0].register_forward_pre_hook(lambda _, args: (args[0] + 1,))
        return net

    net = hooked()
    convert(net, "cp")
    assert unfactored(net) == {"last": "KD144", "body.0": "KD144"}
    assert close(net, factor(copy.deepcopy(net)), atol=1e-4)


def test_every_layer_that_is_not_factored_has_a_reason() -> None:
    grouped = nn.Sequential(nn.Conv2d(6, 6, 3, groups=2, padding=1))
    convert(grouped, "cp", ("0",))
    assert unfactored(grouped) == {"0": "KD141"}
    small_kernel = nn.Sequential(nn.Conv2d(6, 8, 1))
    convert(small_kernel, "cp", ("0",))
    assert unfactored(small_kernel) == {"0": "KD142"}
    net = small()
    convert(net, "lowrank")
    factored = factor(copy.deepcopy(net))
    chains = {name for name in MEMBERS if isinstance(factored.get_submodule(name), nn.Sequential)}
    assert chains | unfactored(net).keys() == set(MEMBERS)
