"""Sub-networks: the answers of the first stages alone, in the original's classes.

    a stage's output -> mean over its places -> a linear map to the classifier's width -> the original's classifier

The answers of each are drawn to the original's by the same KL as the net's own, so that what a family shares is of use
to the shallow layers by themselves. The classifier is frozen and one for all; the maps are trained along, from the
least-squares fit of what the original's classifier takes by what its stages give, and thrown away in the end: nothing
of them is in what is written. The idea is DESign's, whose design is not published: this is our own reading of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ModelError
from ...core.linalg import damp, dense, mix
from ...inputs.data import Views, train_loader
from ...network.blocks import Block
from ...network.inference import evaluating
from ..evaluate.accuracy import first_output
from .loss import captured, stage_ends

IMAGES = 1024  # that the maps are fitted on
Map = tuple[Tensor, Tensor]  # weight (width x channels) and bias


class Subnets(nn.Module):
    """From the outputs (B, channels, ...) of as many stages as there are maps to the answers (B, classes) of each."""

    head_kd: Tensor
    shift_k: Tensor | None

    def __init__(self, maps: Sequence[Map], classifier: nn.Linear) -> None:
        super().__init__()
        self.weights_dc = nn.ParameterList(weight_dc for weight_dc, _ in maps)
        self.biases_d = nn.ParameterList(bias_d for _, bias_d in maps)
        self.register_buffer("head_kd", classifier.weight.detach().clone())
        self.register_buffer("shift_k", None if classifier.bias is None else classifier.bias.detach().clone())

    def forward(self, *outputs: Tensor) -> list[Tensor]:
        maps = zip(outputs, self.weights_dc, self.biases_d, strict=True)
        features = [F.linear(pooled(output), weight_dc, bias_d) for output, weight_dc, bias_d in maps]
        return [F.linear(feature_bd, self.head_kd, self.shift_k) for feature_bd in features]


def pooled(output: Tensor) -> Tensor:
    """(B, channels): the mean over the places."""
    return output.flatten(2).mean(2)


def subnet_ends(original: nn.Module, blocks: Sequence[Block], example: Tensor) -> tuple[str, ...]:
    """The stages that a sub-network can end with: all that give channels and places, but the last, which is the net's.

    Raises ModelError KD310 when there is none.
    """
    names = stage_ends(original, blocks, example)[:-1]
    with evaluating(original), captured(original, names) as outputs:
        original(example)
    ends = tuple(name for name in names if outputs[name].ndim > 2)
    if not ends:
        raise ModelError("KD310", "subnets: this net is not made of two stages or more; leave it out")
    return ends


def fit_subnets(
    original: nn.Module, ends: Sequence[str], example: Tensor, views: Views, batch_size: int, seed: int
) -> Subnets:
    """The sub-networks that end there, their maps fitted on the original, on the views that training begins with.

    Raises ModelError KD310 for an original whose answer is not the output of a Linear layer.
    """
    classifier = classifier_of(original, example)
    device = next(original.parameters()).device
    loader = islice(train_loader(views, batch_size, seed), -(-IMAGES // batch_size))
    given: list[list[Tensor]] = [[] for _ in ends]
    taken: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, args: taken.append(args[0].double()))
    try:
        for inputs in (batch.inputs.to(device) for batch in loader):
            with evaluating(original), captured(original, ends) as outputs:
                original(inputs)
            for place, name in enumerate(ends):
                given[place].append(pooled(outputs[name]).double())
    finally:
        handle.remove()
    wanted_bd = torch.cat(taken)
    return Subnets([linear_fit(torch.cat(features), wanted_bd) for features in given], classifier)


def linear_fit(given_bc: Tensor, wanted_bd: Tensor) -> Map:
    """The least-squares map from the one to the other, in float32; both are float64."""
    mean_c, mean_d = given_bc.mean(0), wanted_bd.mean(0)
    centered_bc = given_bc - mean_c
    weight_dc = mix(dense(damp(centered_bc.T @ centered_bc)), (wanted_bd - mean_d).T @ centered_bc)
    return weight_dc.float(), (mean_d - weight_dc @ mean_c).float()


def classifier_of(original: nn.Module, example: Tensor) -> nn.Linear:
    """The Linear layer whose output is the net's answer. Raises ModelError KD310 where there is none."""
    ran: list[tuple[nn.Linear, Tensor]] = []
    layers = [module for module in original.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_hook(lambda layer, _, output: ran.append((layer, output))) for layer in layers]
    try:
        with evaluating(original):
            answer = first_output(original(example), len(example))
    finally:
        for handle in handles:
            handle.remove()
    found = [layer for layer, output in ran if output is answer]
    if not found:
        raise ModelError("KD310", "subnets: the net's answer is not the output of a Linear layer; leave it out")
    return found[0]
