"""Laws of the survey: every layer is listed with exact costs, and a reason code if it cannot be converted."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, MixedConv2d, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode

from kdna_convert.core.errors import ModelError
from kdna_convert.stages.analyze.survey import survey

IMAGE = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def reason_of(module: nn.Module, example: Tensor = IMAGE) -> str | None:
    return survey(nn.Sequential(module), example)[0].reason


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.Conv2d(4, 6, (1, 5), padding="same"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular", bias=False),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"),
        Conv2dSame(4, 6, 3, stride=2),
        StdConv2d(4, 6, 3, stride=2, bias=True),
        StdConv2dSame(4, 6, 3, stride=2),
        ScaledStdConv2d(4, 6, 3, gamma=1.7),
        ScaledStdConv2dSame(4, 6, 3, stride=2),
    ],
    ids=lambda module: f"{module!r:.60}",
)
def test_a_convolution_whose_patches_reproduce_its_output_can_be_converted(module: nn.Conv2d) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    (layer,) = survey(nn.Sequential(module), IMAGE)
    assert layer.reason is None
    assert layer.kind == type(module).__name__
    assert layer.shape == tuple(module.weight.shape)
    assert (layer.stride, layer.dilation, layer.groups) == (module.stride, module.dilation, module.groups)
    assert layer.in_positions == 81
    assert layer.out_positions == module(IMAGE)[0, 0].numel()


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 11)),
        (nn.Conv3d(4, 6, (1, 3, 2), padding=(0, 1, 0), groups=2), torch.randn(2, 4, 4, 5, 6)),
        (nn.Linear(5, 3), torch.randn(2, 5)),
        (nn.Linear(5, 3), torch.randn(2, 4, 7, 5)),
    ],
)
def test_other_dimensions_and_linear_layers_are_listed(module: nn.Module, example: Tensor) -> None:
    (layer,) = survey(nn.Sequential(module), example)
    assert layer.reason is None
    assert layer.out_positions * layer.out_channels * len(example) == module(example).numel()


def test_layers_come_in_module_order_with_linear_ones_when_asked() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(162, 3))
    assert [layer.name for layer in survey(model, IMAGE)] == ["0", "2", "4"]
    assert [layer.name for layer in survey(model, IMAGE, linear=False)] == ["0", "2"]


def test_macs_and_parameters_are_those_that_torch_counts() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False),
        nn.Flatten(),
        nn.Linear(4 * 64, 3, bias=False),
    )
    layers = survey(model, IMAGE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(IMAGE[:1])
    assert 2 * sum(layer.macs for layer in layers) == counter.get_total_flops()
    assert sum(layer.params for layer in layers) == sum(p.numel() for p in model.parameters())


def test_a_layer_that_runs_twice_adds_its_positions_up() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x)[:, :, ::3, ::3])

    (layer,) = survey(Recurrent(), IMAGE)
    assert (layer.out_positions, layer.reason) == (81 + 9, None)


def test_positions_are_per_image_where_windows_stand_in_the_batch() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x.flatten(0, 1))

    (layer,) = survey(Windows(), IMAGE)
    assert (layer.out_positions, layer.reason) == (36, None)


def test_depthwise_is_kd103_and_a_depth_multiplier_too() -> None:
    assert reason_of(nn.Conv2d(4, 4, 3, groups=4)) == "KD103"
    assert reason_of(nn.Conv2d(4, 8, 3, groups=4)) == "KD103"
    assert reason_of(nn.Conv2d(4, 8, 3, groups=2)) is None


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_transposed_is_kd104_with_its_shape_out_first(dimensions: int) -> None:
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1]
    (layer,) = survey(nn.Sequential(kind(4, 6, 2, groups=2)), torch.randn(1, 4, *[3] * dimensions))
    assert (layer.reason, layer.shape) == ("KD104", (6, 2, *[2] * dimensions))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_weight_that_is_computed_is_kd105_under_its_own_class_name() -> None:
    for wrap in (weight_norm, spectral_norm, nn.utils.weight_norm, nn.utils.spectral_norm):
        (layer,) = survey(nn.Sequential(wrap(nn.Conv2d(4, 6, 3))), IMAGE)
        assert (layer.kind, layer.shape, layer.reason) == ("Conv2d", (6, 4, 3, 3), "KD105")


def test_tied_weights_and_modules_of_two_names_are_kd106() -> None:
    tied = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    tied[1].weight = tied[0].weight
    assert [layer.reason for layer in survey(tied, IMAGE)] == ["KD106", "KD106", None]
    view = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    view[1].weight = nn.Parameter(view[0].weight.data)
    assert [layer.reason for layer in survey(view, IMAGE)] == ["KD106", "KD106"]
    conv = nn.Conv2d(4, 4, 1)
    assert [layer.reason for layer in survey(nn.Sequential(conv, nn.ReLU(), conv), IMAGE)] == ["KD106"]


def test_an_output_layer_tied_to_an_embedding_is_kd106() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(2).transpose(1, 2))

    assert [layer.reason for layer in survey(Tied(), IMAGE)] == ["KD106"]


def test_a_layer_never_reached_is_kd107_even_if_its_weight_is_used() -> None:
    class Borrowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + F.conv2d(x, self.unused.weight)

    layers = {layer.name: layer for layer in survey(Borrowed(), IMAGE)}
    assert (layers["used"].reason, layers["unused"].reason) == (None, "KD107")
    assert layers["unused"].macs == 0


def test_a_lazy_weight_is_kd111_and_has_its_shape_after_the_forward_pass() -> None:
    (layer,) = survey(nn.Sequential(nn.LazyConv2d(6, 3)), IMAGE)
    assert (layer.reason, layer.shape) == ("KD111", (6, 4, 3, 3))


def test_a_quantized_weight_is_kd111() -> None:
    class Integers(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight.float(), self.bias)

    conv = Integers(4, 6, 3)
    conv.weight = nn.Parameter(conv.weight.detach().mul(10).to(torch.int8), requires_grad=False)
    assert reason_of(conv) == "KD111"


class Normalized(nn.Conv2d):
    """A subclass that convolves with something other than its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, F.normalize(self.weight, dim=1), self.bias)


class Shifted(nn.Conv2d):
    """A subclass that pads in a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 0, 2, 0)), self.weight, self.bias)


@pytest.mark.parametrize("kind", [Normalized, Shifted])
def test_a_layer_whose_patches_do_not_give_its_output_is_kd112(kind: type[nn.Conv2d]) -> None:
    assert reason_of(kind(4, 6, 3)) == "KD112"


def test_an_unbatched_input_is_kd112() -> None:
    class Unbatched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.conv(image) for image in x])

    assert [layer.reason for layer in survey(Unbatched(), IMAGE)] == ["KD112"]


def test_keyword_inputs_are_seen() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(input=x)

    assert [layer.reason for layer in survey(Keyword(), IMAGE)] == [None]


def test_mixed_convolutions_show_their_inner_ones() -> None:
    layers = survey(nn.Sequential(MixedConv2d(4, 6, [3, 5])), IMAGE)
    assert [layer.shape for layer in layers] == [(3, 2, 3, 3), (3, 2, 5, 5)]
    assert {layer.reason for layer in layers} == {None}


def test_a_failing_forward_is_kd307_in_one_line_with_the_cause() -> None:
    with pytest.raises(ModelError, match=r"KD307: .*\(2, 4, 9, 9\).*expected input") as caught:
        survey(nn.Sequential(nn.Conv2d(3, 4, 1)), IMAGE)
    assert "\n" not in str(caught.value)


def test_the_survey_leaves_modes_weights_and_hooks_alone() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model[2].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    survey(model, IMAGE)
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model[0]._forward_hooks


class UnitLength(nn.Conv2d):
    """Runs a weight of length 1 as it is, but no other."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, F.normalize(self.weight.flatten(1)).view_as(self.weight), self.bias)


def test_a_layer_that_runs_its_own_weight_as_it_is_but_no_other_computes_its_weight() -> None:
    conv = UnitLength(4, 6, 3)
    conv.weight.data = F.normalize(conv.weight.data.flatten(1)).view_as(conv.weight)
    assert reason_of(conv) == "KD105"


def test_the_probe_with_another_kernel_changes_no_buffer_and_sees_no_hook_twice() -> None:
    conv = nn.Conv2d(4, 6, 3)
    conv.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    conv.register_buffer("calls", torch.zeros(()))
    conv.register_forward_hook(lambda module, args, output: module.calls.add_(1) and None)
    assert reason_of(conv) is None
    assert conv.calls == 1


class Functional(nn.Module):
    """Convolutions with parameters of the net itself, and a constant filter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.up = nn.Parameter(torch.randn(8, 4, 2, 2))
        self.inside = nn.Conv2d(4, 4, 3)
        self.register_buffer("blur", torch.ones(4, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv_transpose2d(F.conv2d(x, self.first, stride=2), self.up)
        return F.conv2d(self.inside(x), self.blur, groups=4)


class Computed(nn.Module):
    """A kernel that is mixed from a bank, as in conditional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(2, 4 * 3 * 9))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.bank.mean(0).view(4, 3, 3, 3))


def test_convolutions_of_a_function_are_kd120_with_their_shapes() -> None:
    rows = {row.name: row for row in survey(Functional(), torch.randn(2, 3, 12, 12))}
    assert {name: row.reason for name, row in rows.items()} == {"first": "KD120", "up": "KD120", "inside": None}
    assert (rows["first"].shape, rows["first"].stride, rows["first"].out_positions) == ((8, 3, 3, 3), (2, 2), 25)
    assert rows["up"].shape == (4, 8, 2, 2), "out first, also of a transposed convolution"


def test_a_computed_kernel_is_kd120_under_the_module_that_computes_it() -> None:
    (row,) = survey(nn.Sequential(nn.ReLU(), Computed()), torch.randn(1, 3, 8, 8))
    assert (row.name, row.kind, row.shape, row.reason) == ("1", "Computed", (4, 3, 3, 3), "KD120")


@pytest.mark.parametrize("compile_net", [torch.jit.script, lambda net: torch.jit.trace(net, torch.randn(1, 3, 8, 8))])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_layers_inside_compiled_code_are_kd120(compile_net: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)).eval()
    plain = survey(net, torch.randn(1, 3, 8, 8))
    compiled = survey(compile_net(net), torch.randn(1, 3, 8, 8))
    assert [(row.name, row.kind, row.shape, row.groups, row.macs) for row in compiled] == [
        (row.name, row.kind, row.shape, row.groups, row.macs) for row in plain
    ]
    assert {row.reason for row in compiled} == {"KD120"}
