"""A net that computes its weights from stored tensors: the same outputs, and each tensor in the fewest bytes."""

import copy

import pytest
import torch
from support.coded import coded, coded_net
from support.small_nets import MEMBERS, OPTIONS, convert, derive_random, images, small
from torch import Tensor, nn

from kdna_convert.codecs import CODECS
from kdna_convert.core.specs import DataConfig, Family, Layer, ModelRef, Plan, Totals
from kdna_convert.network.derive import derive, fold_weights
from kdna_convert.network.folder import Conversion
from kdna_convert.network.stored import stored_state
from kdna_convert.stages.export.compact_weights import Stored, compact_weights, file_names, narrow


def plain(net: nn.Module, *families: Family) -> Conversion:
    totals = Totals(1, 1, 1)
    return Conversion(net.eval(), Plan(ModelRef("x"), families, (), totals, totals), DataConfig((3, 12, 12)), "x")


def made(conversion: Conversion) -> nn.Module:
    return compact_weights(fold_weights(copy.deepcopy(conversion.model)).eval(), conversion)


def outputs(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return net(images())


def stored(net: nn.Module) -> dict[str, list[Tensor]]:
    """The parts of each stored tensor, by the name of its module."""
    return {name: [*module.buffers()] for name, module in net.named_modules() if isinstance(module, Stored)}


@pytest.mark.parametrize("scheme", OPTIONS)
def test_each_scheme_computes_the_weights_that_it_had(scheme: str) -> None:
    net = small()
    conversion = plain(net, derive_random(net, scheme))
    assert len(stored(made(conversion))) > 3
    torch.testing.assert_close(outputs(made(conversion)), outputs(net))


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_computes_the_weights_that_it_had(codec: str) -> None:
    net = small()
    conversion = coded_net(net, (derive_random(net, "codebook"),), codec)
    torch.testing.assert_close(outputs(made(conversion)), outputs(net), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("codec", "dtypes"),
    [
        ("fp16", {torch.float16}),
        ("bf16", {torch.float16}),  # which holds these numbers too
        ("int8", {torch.int8}),
        ("int4", {torch.uint8}),
        ("entropy", {torch.int8}),
    ],
)
def test_weights_have_the_dtype_of_their_codec(codec: str, dtypes: set[torch.dtype]) -> None:
    parts = stored(made(coded(codec, None)))
    convolutions = [f"{name}.parametrizations.weight.0" for name in ("stem", *MEMBERS)]
    assert {parts[name][0].dtype for name in convolutions} == dtypes


def test_four_bits_are_stored_two_to_a_byte_for_odd_sizes_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.Conv2d(5, 1, 1, bias=False)).eval()
    conversion = coded_net(net, (), "int4")
    sizes = [parts[0].numel() for parts in stored(made(conversion)).values()]
    assert sizes == [(5 * 27 + 1) // 2, 3]
    torch.testing.assert_close(outputs(made(conversion)), outputs(net))


def test_a_normalization_of_a_coded_net_is_stored_as_logarithms_and_integers() -> None:
    conversion = coded("entropy", None)
    parts = stored(made(conversion))
    assert not any(parts[f"norm.parametrizations.{key}.0"][0].is_floating_point() for key in ("weight", "bias"))
    assert len(parts["norm.parametrizations.weight.0"]) == 1
    net = small()
    with torch.no_grad():
        net.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.01, 3.0, 1.0]))
    signed = coded_net(net, (), "entropy")
    assert len(stored(made(signed))["norm.parametrizations.weight.0"]) == 2
    torch.testing.assert_close(outputs(made(signed)), outputs(net), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("edges", "dtype"),
    [
        ((0, 255), torch.uint8),
        ((-128, 127), torch.int8),
        ((0, 256), torch.int16),
        ((-129, 0), torch.int16),
        ((0, 2**15), torch.int32),
        ((0, 2**40), torch.int64),
    ],
)
def test_integers_get_the_smallest_dtype_that_holds_them(edges: tuple[int, int], dtype: torch.dtype) -> None:
    integers = torch.tensor(edges)
    assert narrow(integers).dtype == dtype
    assert torch.equal(narrow(integers).long(), integers)
    assert narrow(integers[:0]).numel() == 0


def test_shared_tensors_are_stored_once_and_indices_in_a_byte() -> None:
    net = small()
    conversion = plain(net, derive_random(net, "codebook"))
    compact = made(conversion)
    letters = [name.rpartition(".")[2] for name in stored(compact)]
    assert sorted(letters) == ["E", *["K"] * 3, *["U"] * 3]
    assert {parts[0].dtype for name, parts in stored(compact).items() if name.endswith("K")} == {torch.uint8}
    numbers = sum(tensor.numel() for tensor in [*compact.parameters(), *compact.buffers()])
    assert numbers == sum(tensor.numel() for tensor in stored_state(conversion.model).values())


def test_a_stored_tensor_has_the_name_that_it_has_in_the_folder() -> None:
    net = small()
    conversion = coded_net(net, (derive_random(net, "cp"),), "int8")
    outer = nn.Sequential(made(conversion))
    names = file_names(outer, "0.")
    assert names.keys() >= outer.state_dict().keys()
    assert {*names.values()} >= stored_state(net).keys()
    shared = [name for name in names if ".shared." in name and name.endswith("part0")]
    assert {names[name] for name in shared} == {"body.0.V"}
    assert len(shared) == 3
    assert names["0.stem.parametrizations.weight.0.part1"] == "stem.weight.1"


class Odd(nn.Module):
    """Layers of other kinds: depthwise, linear, one weight in two layers, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv2d(3, 6, 3, groups=3)
        self.first, self.second = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)
        self.second.weight = self.first.weight
        self.time = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.depth(x)))
        return self.head(self.time(x.flatten(2).mT)[0].mean(1))


def test_other_kinds_of_layers_keep_their_outputs() -> None:
    torch.manual_seed(0)
    net = Odd().eval()
    families = convert(net, "kerneldna", ("depth",)), convert(net, "lowrank", ("head",))
    conversion = coded_net(net, families, "entropy")
    compact = made(conversion)
    torch.testing.assert_close(outputs(compact), outputs(net), atol=1e-5, rtol=1e-5)
    assert compact.first.parametrizations.weight[0] is compact.second.parametrizations.weight[0]  # type: ignore[union-attr,index]
    assert isinstance(compact.time.weight_ih_l0, nn.Parameter)  # type: ignore[union-attr]


def test_a_standardizing_layer_gets_the_weight_that_it_standardizes() -> None:
    from timm.layers import StdConv2d

    net = nn.Sequential(StdConv2d(3, 6, 3, eps=1e-5), nn.Conv2d(6, 4, 1)).eval()
    family = Family("lowrank", ("0",), {"rank": 2})
    layer = Layer("0", "StdConv2d", (6, 3, 3, 3), standardized=(1e-5, 1.0))
    derive(net, family, {}, [{"U": 0.1 * torch.randn(6, 2), "V": torch.randn(2, 27)}], (layer,))
    conversion = plain(net, family)
    torch.testing.assert_close(outputs(made(conversion)), outputs(net))
