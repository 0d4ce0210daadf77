"""Plans of the small net, and a database of three families that is small enough to solve by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.small_nets import MEMBERS, images
from torch import nn

from kdna_convert.core.choices import Choice, Database, MemberMacs
from kdna_convert.core.specs import Family, Layer, ModelRef, Plan, TensorSpec, Totals
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.analyze.collect import collect
from kdna_convert.stages.analyze.moments import Moments
from kdna_convert.stages.analyze.survey import survey

SIZES = {
    "cp": {"rank": 9},
    "separable": {"rank": 9},
    "basis": {"rank": 8},
    "tucker": {"rank": 4},
    "output": {"rank": 4},
    "atoms": {"rank": 12},
    "warehouse": {"rank": 8, "cell": 2},
    "codebook": {"rank": 12},
    "lowrank": {"rank": 4},
    "kerneldna": {"residual_rank": 2},
}


def plan_for(net: nn.Module, *families: Family) -> Plan:
    nothing = Totals(0, 0, 0)
    return Plan(ModelRef("small"), families, survey(net, images()), nothing, nothing)


def family(scheme: str, members: Sequence[str] = MEMBERS, **options: Any) -> Family:
    return Family(scheme, tuple(members), SIZES[scheme] | options)


def moments_of(net: nn.Module) -> Moments:
    return collect(net, survey(net, images()), [images(16)])


def square_conv(name: str, channels: int) -> Layer:
    return Layer(name, "Conv2d", (channels, channels, 3, 3), in_positions=4, out_positions=4)


def toy(errors: list[dict[int, float]]) -> Database:
    """Families of two 3x3 layers with these predicted errors by rank, and nothing else in the net."""
    layers, choices = [], []
    for place, points in enumerate(errors):
        channels = 4 + place
        members = [square_conv(f"a{place}", channels), square_conv(f"b{place}", channels)]
        layers += members
        shapes = [member.shape for member in members]
        choices.append(
            Choice(
                family=Family("lowrank", tuple(member.name for member in members)),
                size="rank",
                smallest=1,
                limit=max(points),
                layout=SCHEMES["lowrank"]().layout(shapes),
                macs=tuple(MemberMacs(member.macs, 40 * channels, factored_up_to=3) for member in members),
                points=points,
            )
        )
    tensors = tuple(TensorSpec(f"{one.name}.weight", one.shape) for one in layers)
    params, macs = sum(one.params for one in layers), sum(one.macs for one in layers)
    return Database("", ModelRef("toy"), tuple(layers), tensors, params, macs, {"format": "pt"}, tuple(choices))


TOY = toy([{1: 9.0, 2: 4.0, 3: 1.0}, {1: 5.0, 2: 4.5, 3: 0.1}, {1: 30.0, 2: 3.0, 3: 2.9}])
