"""Sub-networks: logits computed from the output of an early stage.

    output of a stage -> mean over positions -> linear map to the classifier's width -> classifier of the original

Each sub-network has its own term in the loss: the same KL divergence from the teacher's logits as the whole net. So the
shared tensors of a family also have to be useful to the shallow layers alone. All sub-networks use the original's
classifier, which is frozen. The linear maps start as a least-squares fit on the original net and are trained with the
net. They are discarded after training and are not saved. The idea is from DESign; no description of its design is
published, so this is our own version.
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
from ...tasks import CLASSIFY, captured, run
from .loss import stage_ends

IMAGES = 1024  # images for the least-squares fit of the maps
Map = tuple[Tensor, Tensor]  # weight (width x channels) and bias


class Subnets(nn.Module):
    """Computes the logits (B, classes) of each sub-network from the outputs (B, channels, ...) of the stages."""

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
    """The mean over positions, (B, channels)."""
    return output.flatten(2).mean(2)


def subnet_ends(original: nn.Module, blocks: Sequence[Block], example: Tensor) -> tuple[str, ...]:
    """The stages that sub-networks start from: all with channels and positions, except the last stage.

    Raises:
        ModelError: KD310 if there is none.
    """
    names = stage_ends(original, blocks, example)[:-1]
    with evaluating(original), captured(original, names) as outputs:
        original(example)
    ends = tuple(name for name in names if outputs[name].ndim > 2)
    if not ends:
        raise ModelError("KD310", "subnets: this net does not have two or more stages; leave it out")
    return ends


def fit_subnets(
    original: nn.Module, ends: Sequence[str], example: Tensor, views: Views, batch_size: int, seed: int
) -> Subnets:
    """The sub-networks of the stages `ends`. Their maps are fitted on the original and the first training views.

    Raises:
        ModelError: KD310 if the output of the original is not the output of a Linear layer.
    """
    classifier = classifier_of(original, example)
    device = next(original.parameters()).device
    loader = islice(train_loader(views, batch_size, seed), -(-IMAGES // batch_size))
    features: list[list[Tensor]] = [[] for _ in ends]
    targets: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, args: targets.append(args[0].double()))
    try:
        for inputs in (batch.inputs.to(device) for batch in loader):
            with evaluating(original), captured(original, ends) as outputs:
                original(inputs)
            for place, name in enumerate(ends):
                features[place].append(pooled(outputs[name]).double())
    finally:
        handle.remove()
    target_bd = torch.cat(targets)
    return Subnets([linear_fit(torch.cat(parts), target_bd) for parts in features], classifier)


def linear_fit(feature_bc: Tensor, target_bd: Tensor) -> Map:
    """The least-squares map from features to targets, both float64. The map is float32."""
    mean_c, mean_d = feature_bc.mean(0), target_bd.mean(0)
    centered_bc = feature_bc - mean_c
    weight_dc = mix(dense(damp(centered_bc.T @ centered_bc)), (target_bd - mean_d).T @ centered_bc)
    return weight_dc.float(), (mean_d - weight_dc @ mean_c).float()


def classifier_of(original: nn.Module, example: Tensor) -> nn.Linear:
    """The Linear layer whose output is the output of the net. Raises ModelError KD310 if there is none."""
    outputs: list[tuple[nn.Linear, Tensor]] = []
    layers = [module for module in original.modules() if isinstance(module, nn.Linear)]
    handles = [
        layer.register_forward_hook(lambda layer, _, output: outputs.append((layer, output))) for layer in layers
    ]
    try:
        with evaluating(original):
            logits = run(CLASSIFY, original, example)[0]
    finally:
        for handle in handles:
            handle.remove()
    classifiers = [layer for layer, output in outputs if output is logits]
    if not classifiers:
        raise ModelError("KD310", "subnets: the output of this net is not the output of a Linear layer; leave it out")
    return classifiers[0]
