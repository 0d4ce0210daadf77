"""How a family's kernels are stored: the table of schemes and the interface each of them signs.

A scheme is a frozen dataclass whose fields are the recipe's options, with pure functions on float64 tensors. It never
sees an nn.Module. A kernel W of shape (out, in, *taps) is met as its matrix W_on, n = in x taps: the row that
multiplies an unfolded input patch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, Protocol

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ..core.errors import PlanError, RecipeError
from ..core.linalg import Target
from ..core.specs import Family, Layout, Options, Shape
from .atoms import Atoms
from .basis import Basis
from .codebook import Codebook
from .cp import Cp
from .kerneldna import KernelDna
from .lowrank import LowRank
from .output import Output
from .separable import Separable
from .tucker import Tucker
from .warehouse import Warehouse

Tensors = dict[str, Tensor]


class Scheme(Protocol):
    """See tests/test_schemes.py for the laws every scheme obeys.

    A scheme whose kernels are mixings of a list of rows also has `rows(shared, adapter, shape)`, r x n, and `refine`,
    the joint fit from given tensors on: its families can be cut to a smaller size afterwards (directions.py). One that
    has several starts gives them by `variants()`; one whose error falls in another way than most says by `tried` at
    which sizes it is predicted (database.py). One whose adapters hold indices, which `fit` leaves, has `choose`: the
    same with indices chosen anew.
    """

    name: ClassVar[str]
    size: ClassVar[str]  # the option that a budget buys, e.g. rank
    smallest: ClassVar[int]
    shares: ClassVar[bool]  # False: every layer is a family of its own

    def group(self, shape: Shape) -> Hashable:
        """Kernels with equal keys may share one family."""
        ...

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The largest useful value of the size option for a family of these kernel shapes."""
        ...

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        """The stored tensors; the size option stands in them by its name. A tensor without elements is not stored."""
        ...

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        """Multiply-adds per image of one member run factored (or dense, where a scheme has no factored form)."""
        ...

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        """The joint fit of a family: its shared tensors and each member's adapter, by at most `sweeps` iterations."""
        ...

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """One member's adapter by least squares with all else held, from the normal equations in `target`."""
        ...

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        """The dense kernel, differentiable, in the tensors' dtype."""
        ...

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        """The kernels of the equivalent chain of convolutions, or None. A factor (r, 1, *taps) is depthwise; the one
        with taps takes the layer's stride, padding and dilation."""
        ...


@cache
def _reader(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(SCHEMES[name])


SCHEMES: dict[str, type[Any]] = {
    scheme.name: scheme
    for scheme in (Cp, Separable, Basis, Tucker, Output, Atoms, Warehouse, Codebook, LowRank, KernelDna)
}


def make(name: str, options: Options, where: str = "options") -> Any:
    """The scheme of that name with these options.

    Raises RecipeError KD202 or KD203, each naming `where`; PlanError KD503 for a name that is none of SCHEMES.
    """
    if name not in SCHEMES:
        raise PlanError("KD503", f"this version of kdna has no scheme {name!r}; it has {', '.join(SCHEMES)}")
    kind = SCHEMES[name]
    known = {field.name for field in fields(kind)}
    for key in options:
        if key not in known:
            raise RecipeError("KD202", f"{where}: {name} has no option {key!r}; it has {', '.join(sorted(known))}")
    try:
        return _reader(name).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join((where, *map(str, first["loc"])))
        got = f", got {first['input']!r}" if first["loc"] else ""
        raise RecipeError("KD203", f"{key}: {first['msg'].removeprefix('Value error, ')}{got}") from None


def scheme_of(family: Family, **changed: Any) -> Any:
    """The scheme of a family, its options checked, some of them changed."""
    return make(family.scheme, {**family.options, **changed}, f"family of {family.members[0]}: options")
