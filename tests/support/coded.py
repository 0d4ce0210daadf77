"""The small net, coded: its tensors as one string of bytes, and the conversion that holds it."""

from __future__ import annotations

from support.small_nets import convert, route, small
from torch import nn

from kdna_convert.codecs.quantization_steps import nearest_step
from kdna_convert.core.filesize import file_size, metadata
from kdna_convert.core.specs import DataConfig, Family, Layer, ModelRef, Plan, Route, Totals
from kdna_convert.network.batch_norm import foldable_norms
from kdna_convert.network.folder import Conversion
from kdna_convert.network.folder.report import CodeReport, Report
from kdna_convert.network.packed import coded_specs, pack, unpack
from kdna_convert.network.stored import load_stored, stored_state


def steps(net: nn.Module, share: float = 0.02) -> dict[str, int]:
    """A fine step for every tensor and every normalization's shifts."""
    state = stored_state(net)
    numbers = {name: nearest_step(share * float(t.abs().max() + 1e-9)) for name, t in state.items()}
    return numbers | {name: nearest_step(share) for name in foldable_norms(net)}


def coded(codec: str, scheme: str | None = "cp", routing: str | None = None) -> Conversion:
    net = small()
    families = () if scheme is None else (convert(net, scheme),)
    return coded_net(net, families, codec, route(net, routing))


def coded_net(net: nn.Module, families: tuple[Family, ...], codec: str, routes: tuple[Route, ...] = ()) -> Conversion:
    blob = pack(net, codec, steps(net))
    load_stored(net, unpack(blob))
    ref = ModelRef("support.small_nets:small")
    params = sum(parameter.numel() for parameter in net.parameters())
    size = file_size(coded_specs(blob), metadata(ref, "scheme: dense\n"))
    totals = Totals(params, size, 1)
    plan = Plan(ref, families, layers_of(net), totals, totals, routes=routes)
    return Conversion(net, plan, DataConfig((3, 12, 12)), "scheme: dense\n", coded=blob)


def layers_of(net: nn.Module) -> tuple[Layer, ...]:
    return tuple(
        Layer(name, "Conv2d", tuple(module.weight.shape))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    )


def entropy_coded() -> Conversion:
    conversion = coded("entropy")
    size = conversion.plan.planned.bytes
    conversion.report = Report(code=CodeReport("entropy", size, size + 40))
    return conversion
