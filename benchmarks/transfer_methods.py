"""The methods of benchmarks/transfer.py: which parameters a ResNet-18 gets for a new task, and which are trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transfer_kinds import Kind

import kdna_convert as kdna
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.routing import routers

# The parameters that a method may train besides the head: a tenth of the net's. Training everything has no limit.
BUDGET = 1_100_000
EVERYWHERE, EARLY = "all layers", "layer1, layer2"
# Each routing by its settings in a recipe, and the layers that it is placed on: those that stay within BUDGET. What
# stores kernels for each layer is placed on the first two stages, whose kernels are small.
ROUTINGS_TRIED = {
    "se": EVERYWHERE,
    "context": EVERYWHERE,
    "{name: omni, kernels: 1}": EVERYWHERE,
    "frequency": EARLY,
    "warehouse": EARLY,
    "{name: omni, kernels: 2}": EARLY,
    "{name: dyconv, kernels: 2}": EARLY,
    "{name: cond, kernels: 2}": EARLY,
    "partial": EARLY,
}
HEAD, NORMS, LORA, FULL = "head", "norms", "lora", "full"
METHODS = (HEAD, NORMS, LORA, FULL, *ROUTINGS_TRIED)


@dataclass(frozen=True)
class Prepared:
    """A net with a new head of zeros, and the parameters that a method trains. `rank` is that of LoRA."""

    model: nn.Module
    head: tuple[nn.Parameter, ...]
    others: tuple[nn.Parameter, ...]
    rank: int | None = None


class LowRank(nn.Module):
    """LoRA: a frozen convolution plus one of `rank` channels and a 1x1 of zeros, which can be merged into it."""

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.conv = conv
        self.down = nn.Conv2d(conv.in_channels, rank, conv.kernel_size, conv.stride, conv.padding, bias=False)
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) + self.up(self.down(x))
        return y


def prepare(
    method: str, original: nn.Module, kind: Kind, images: Tensor, seed: int, rank: int | None = None
) -> Prepared:
    """The net of a method, ready to be trained. Without its head it answers as the original does, to 1e-4.

    Args:
        method: One of METHODS.
        original: The pretrained ResNet-18, which does not change.
        kind: What the new task asks of a net.
        images: Images of the new task, without labels, for routings that look at them.
        seed: Seed of whatever is drawn.
        rank: That of LoRA; None for other methods.
    """
    torch.manual_seed(seed)
    model = routed(method, original, images, seed) if method in ROUTINGS_TRIED else copy.deepcopy(original)
    if rank is not None:
        for name in routable(original):
            parent, _, last = name.rpartition(".")
            conv: Any = model.get_submodule(name)
            setattr(model.get_submodule(parent), last, LowRank(conv, rank))
    with torch.no_grad():
        difference = (model.eval()(images[:8]) - original(images[:8])).abs().max()
    if difference > 1e-4:
        raise SystemExit(f"{method} starts {difference:.1e} from the pretrained net's answers")
    model, new = kind.with_head(model, kind.classes)
    head = tuple(new.parameters())
    others = tuple({id(parameter): parameter for parameter in _others(method, model, new)}.values())
    model.requires_grad_(False)
    for parameter in (*head, *others):
        parameter.requires_grad_()
    return Prepared(model, head, others, rank)


def routed(routing: str, original: nn.Module, images: Tensor, seed: int) -> nn.Module:
    """A copy of the net with this routing on its layers, never on the first convolution."""
    how = f"routing: {routing}" if ROUTINGS_TRIED[routing] == EVERYWHERE else ""
    rules = "" if how else f"rules: [{{layers: ['layer1.*', 'layer2.*'], routing: {routing}}}]"
    text = f"scheme: dense\n{how}{rules}\nseed: {seed}\ncalibration: {{images: 16, heldout: 0}}\n"
    model = kdna.convert(original, recipe=parse_recipe(text), data=images[:16], task="classify").model
    if added(model) > BUDGET:
        raise SystemExit(f"{routing} has {added(model):,} parameters, more than {BUDGET:,}")
    return model


def routable(original: nn.Module) -> list[str]:
    """The layers that a routing is placed on."""
    convolutions = [name for name, module in original.named_modules() if isinstance(module, nn.Conv2d)]
    return convolutions[1:]


def lora_rank(original: nn.Module, images: Tensor) -> int:
    """The rank at which LoRA has about the parameters of the median routing."""
    sizes = [added(routed(routing, original, images, 0)) for routing in ROUTINGS_TRIED]
    convolutions: list[Any] = [original.get_submodule(name) for name in routable(original)]
    of_one = sum(conv.weight[0].numel() + conv.out_channels for conv in convolutions)
    return max(1, round(median(sizes) / of_one))


def added(model: nn.Module) -> int:
    """The parameters of all routers."""
    return sum(parameter.numel() for router in routers(model).values() for parameter in router.parameters())


def _others(method: str, model: nn.Module, head: nn.Module) -> Iterator[nn.Parameter]:
    """What a method trains besides the head."""
    if method == FULL:
        own = {id(parameter) for parameter in head.parameters()}
        yield from (parameter for parameter in model.parameters() if id(parameter) not in own)
    elif method != HEAD:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                yield from module.parameters()
            elif isinstance(module, LowRank):
                yield from (module.down.weight, module.up.weight)
        for router in routers(model).values():
            yield from router.parameters()
