"""The interface of a routing: which layers it supports, how it groups them, and the routers that it builds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from ..core.specs import Layer
from .router import Router


class Routing(Protocol):
    """The interface of a routing: a frozen dataclass whose fields are the recipe's options. Derive from it.

    The laws that each routing obeys are in tests/routing/test_routing_laws.py.

    Attributes:
        name: The routing's name in recipes and plans.
        ungrouped: The KD1xx code of layers that `can_route` supports and `groups` leaves out.
    """

    name: ClassVar[str]
    ungrouped: ClassVar[str] = "KD113"
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @abstractmethod
    def can_route(self, layer: Layer) -> str | None:
        """None, or the KD1xx code of the reason why this layer cannot have such a router."""

    @abstractmethod
    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        """Divide layers, all of which can be routed, into groups that share a router's tensors.

        The first layer of a group is the owner. Layers may be left out. A group may also hold modules that are not in
        `layers`, such as an activation, described as Layers of their own.
        """

    @abstractmethod
    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        """Build the routers of one group, at the identity. Routers that share tensors hold the same tensors.

        Args:
            layers: The layers of the group.
            weights: Their kernels, to start from. They can hold any numbers, NaN too, since stored tensors may be
                loaded over the routers afterwards.
            seeds: A seed for each layer. The global random state is not used.
        """

    @abstractmethod
    def macs(self, layers: Sequence[Layer]) -> int:
        """Multiply-adds per image that the routers of one group add to their layers."""
