"""The interface of a scheme: how the kernels of a family are stored, fitted and computed.

A scheme is a frozen dataclass whose fields are the recipe's options. Its methods are pure functions of float64 tensors
and see no nn.Module. A kernel W of shape (out, in, *taps) is treated as its matrix W_on, with n = in x taps: the matrix
that multiplies an unfolded input patch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..core.linalg import Target
from ..core.specs import Layout, Options, Shape, SymbolicShape

Tensors = dict[str, Tensor]


class Scheme(Protocol):
    """The interface of a scheme. Derive from it: abstract members are required, the others have a default.

    A scheme whose families can be cut to a smaller size later derives from `CuttableScheme` instead. The laws that each
    scheme obeys are in tests/schemes/test_scheme_laws.py.

    Attributes:
        name: The scheme's name in recipes and plans.
        size: The option that a budget buys, for example `rank`.
        smallest: The least value of that option.
        shares: Whether layers can form a family. If False, every layer is a family of its own.
        probes: Where the planner measures the error of a quick fit, as fractions of the way from the smallest size to
            the largest. The error in between is interpolated, beyond the last it is extrapolated. Each probe costs a
            fit, and the largest costs most. The first is 0, so that the smallest size is always measured.
    """

    name: ClassVar[str]
    size: ClassVar[str]
    smallest: ClassVar[int] = 1
    shares: ClassVar[bool] = True
    probes: ClassVar[tuple[float, ...]] = (0.0, 0.07, 0.15, 0.28, 0.48, 0.75)
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @abstractmethod
    def group(self, shape: Shape) -> Hashable:
        """The key of a kernel. Kernels with equal keys can form one family."""

    @abstractmethod
    def limit(self, shapes: Sequence[Shape]) -> int:
        """The largest useful value of the size option for a family of these kernel shapes."""

    @abstractmethod
    def layout(self, shapes: Sequence[Shape]) -> Layout:
        """The stored tensors of a family of these kernel shapes.

        The size option appears in the tensors' shapes by its name. A tensor without elements is not stored.
        """

    @abstractmethod
    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        """Multiply-adds per image of one member that runs factored, or dense if the scheme has no factored form."""

    @abstractmethod
    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        """Fit a family jointly.

        Args:
            targets: The least-squares problem of each member.
            seed: Seed of every random number that the fit draws.
            sweeps: The largest number of iterations of the joint search.

        Returns:
            The shared tensors and each member's adapter, float64; indices are int16.
        """

    @abstractmethod
    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """Fit one member's adapter by least squares, with the shared tensors and all indices fixed."""

    @abstractmethod
    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        """Compute the dense kernel of `shape`, differentiably, in the tensors' dtype."""

    @abstractmethod
    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        """The kernels of the equivalent chain of convolutions, or None if there is no such chain.

        A factor of shape (r, 1, *taps) is depthwise. The factor with taps takes the layer's stride, padding and
        dilation.
        """

    def reassign(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """Fit one member's adapter and choose its indices again. Without indices this is `fit`."""
        return self.fit(shared, adapter, target)

    def variants(self) -> tuple[Options, ...]:
        """Variants of the options. Each is fitted alone, and the fit that changes the net least is kept.

        The planner's quick fits use the last one.
        """
        return ({},)


class CuttableScheme(Scheme):
    """A scheme whose kernels are mixings of a list of rows, W_on = U_or R_rn, so that its families can be cut.

    Cutting keeps the leading rows along every axis that the layout names by the size option
    (stages/convert/directions.py).
    """

    @abstractmethod
    def rows(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        """The rows R (r x n) that a member's U mixes, one direction per row."""

    @abstractmethod
    def refine(
        self, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target], sweeps: int
    ) -> tuple[Tensors, list[Tensors]]:
        """Fit a family jointly, as `share` does, starting from these tensors. Adapters need no U."""

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (adapter["U"] @ self.rows(shared, adapter, shape)).view(shape)


def size_of(scheme: Scheme) -> int:
    """The value of the scheme's size option."""
    return int(getattr(scheme, scheme.size))


def concrete(shape: SymbolicShape, scheme: Scheme) -> Shape:
    """A shape of the scheme's layout with each option's name replaced by its value."""
    return tuple(getattr(scheme, axis) if isinstance(axis, str) else axis for axis in shape)
