"""A net, a conversion of it that is poor, and the images to repair it with."""

import copy

import torch
from support.small_nets import fitted
from support.tiny import net_with_statistics

from kdna_convert.core.specs import Family
from kdna_convert.network.derive import derive
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.repair.net_pair import NetPair
from kdna_convert.stages.repair.run_steps import Measure

FAMILY = Family("cp", ("blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2"), {"rank": 12})


IMAGES = torch.randn(300, 3, 16, 16, generator=torch.Generator().manual_seed(3))


BANK = Family("codebook", FAMILY.members, {"rank": 24, "gain": "filter"})


def pair(family: Family = FAMILY, **more: object) -> tuple[NetPair, Measure]:
    """A net, its conversion fitted without data, which is poor, and how far the one is from the other."""
    net = net_with_statistics()
    converted = copy.deepcopy(net)
    derive(converted, family, *fitted(converted, family))
    layers = survey(net, IMAGES[:1])
    held = list(IMAGES[:44].split(22))
    z0 = outputs_of(net, held)
    return NetPair(net, converted, layers, IMAGES[44:].split(64), **more), lambda model: divergence(
        outputs_of(model, held), z0
    )
