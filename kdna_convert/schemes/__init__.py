"""The schemes: how the kernels of a family are stored. `SCHEMES` is the table, scheme.py the interface."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..core.errors import PlanError, RecipeError, reason_of
from ..core.specs import Family, Options
from .atoms import Atoms
from .basis import Basis
from .codebook import Codebook
from .cp import Cp
from .kerneldna import KernelDna
from .lowrank import LowRank
from .output import Output
from .scheme import CuttableScheme, Scheme, Tensors, concrete, size_of
from .separable import Separable
from .tucker import Tucker
from .warehouse import Warehouse

__all__ = ["SCHEMES", "CuttableScheme", "Scheme", "Tensors", "concrete", "make", "scheme_of", "size_of"]

SCHEMES: dict[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (Cp, Separable, Basis, Tucker, Output, Atoms, Warehouse, Codebook, LowRank, KernelDna)
}


def make(name: str, options: Options, where: str = "options") -> Scheme:
    """The scheme of that name with these options, checked.

    Args:
        name: A key of SCHEMES.
        options: Values of the scheme's fields. A field left out has its default.
        where: What the options belong to, for the error message.

    Raises:
        RecipeError: KD202 for an unknown option, KD203 for a wrong value.
        PlanError: KD503 for an unknown name.
    """
    if name not in SCHEMES:
        raise PlanError("KD503", f"this version of kdna has no scheme {name!r}; it has {', '.join(SCHEMES)}")
    kind = SCHEMES[name]
    names = {field.name for field in fields(kind)}
    for key in options:
        if key not in names:
            raise RecipeError("KD202", f"{where}: {name} has no option {key!r}; it has {', '.join(sorted(names))}")
    try:
        return _reader(name).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join((where, *map(str, first["loc"])))
        got = f", got {first['input']!r}" if first["loc"] else ""
        raise RecipeError("KD203", f"{key}: {reason_of(first)}{got}") from None


def scheme_of(family: Family, **changed: Any) -> Scheme:
    """The scheme of a family with its options, some of them changed. Raises as `make` does."""
    return make(family.scheme, {**family.options, **changed}, f"family of {family.members[0]}: options")


@cache
def _reader(name: str) -> TypeAdapter[Scheme]:
    return TypeAdapter(SCHEMES[name])
