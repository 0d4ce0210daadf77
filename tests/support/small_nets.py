"""A net small enough to convert in milliseconds, and its conversion."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdna_convert.core.linalg import Target
from kdna_convert.core.specs import Family, Layer, Route, SymbolicShape
from kdna_convert.network.derive import derive
from kdna_convert.routing import attach_routes
from kdna_convert.schemes import Tensors, concrete, make, scheme_of, size_of

OPTIONS = {
    "cp": {"rank": 5},
    "separable": {"rank": 5},
    "basis": {"rank": 4},
    "tucker": {"rank": 3},
    "output": {"rank": 3},
    "atoms": {"rank": 5},
    "warehouse": {"rank": 3, "cell": 2},
    "codebook": {"rank": 12},
    "lowrank": {"rank": 3},
    "kerneldna": {"parent": "medoid", "start": "lstsq", "channel": True, "residual_rank": 2},
}
MEMBERS = ("body.0", "body.2", "last")


class Small(nn.Module):
    """A stem, three 3x3 layers of one shape and of different stride, padding and bias, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.body = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, padding=2, dilation=2, bias=False)
        )
        self.last = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = self.last(F.relu(self.body(x)))
        return self.head(x.mean((2, 3)))


def small(seed: int = 0) -> Small:
    """A Small in eval mode with statistics that are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Small()
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn((count, 3, 12, 12), generator=torch.Generator().manual_seed(seed))


def fitted(net: nn.Module, family: Family) -> tuple[Tensors, list[Tensors]]:
    """A family's tensors, fitted without data."""
    kernels = [net.get_submodule(name).weight.detach().double() for name in family.members]
    targets = [
        Target(tuple(w.shape), w.flatten(1), w.flatten(1), torch.eye(w[0].numel(), dtype=torch.float64), 1.0)
        for w in kernels
    ]
    return make(family.scheme, family.options).share(targets, seed=0, sweeps=5)


def convert(net: nn.Module, scheme: str = "cp", members: tuple[str, ...] = MEMBERS) -> Family:
    """Derive the members, in place, and return their family."""
    family = Family(scheme, members, OPTIONS[scheme])
    derive(net, family, *fitted(net, family))
    return family


def derive_random(net: nn.Module, scheme: str, members: tuple[str, ...] = MEMBERS) -> Family:
    """Derive the members from random tensors, in place, and return their family."""
    family = Family(scheme, members, OPTIONS[scheme])
    made = scheme_of(family)
    layout = made.layout([tuple(net.get_submodule(name).weight.shape) for name in members])
    noise = torch.Generator().manual_seed(list(OPTIONS).index(scheme))

    def drawn(part: dict[str, SymbolicShape]) -> Tensors:
        sizes = {letter: concrete(shape, made) for letter, shape in part.items()}
        indices = {
            letter: torch.randint(size_of(made), size, generator=noise).short() for letter, size in sizes.items()
        }
        floats = {letter: torch.randn(size, generator=noise) for letter, size in sizes.items()}
        return {letter: (indices if letter in layout.indices else floats)[letter] for letter in sizes}

    derive(net, family, drawn(layout.shared), [drawn(part) for part in layout.adapters])
    return family


def route(net: nn.Module, routing: str | None, members: tuple[str, ...] = MEMBERS) -> tuple[Route, ...]:
    """Route the members, in place, each by itself, and return the routes: none without a routing."""
    modules = {name: net.get_submodule(name) for name in members if routing}
    layers = [Layer(name, "Conv2d", tuple(module.weight.shape)) for name, module in modules.items()]
    routes = tuple(Route(routing or "", (layer,)) for layer in layers)
    attach_routes(net, routes)
    return routes


class Versioned(Small):
    """A Small that takes tensors of its own version only, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        assert local_metadata.get("version") == self._version
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
