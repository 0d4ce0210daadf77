"""The joint fit of a family, with an error that names its layers, and which families are fitted side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...core.errors import NumericsError
from ...core.linalg import FULL_METRIC_PATCH, Target
from ...core.specs import Family, Layer
from ...schemes import Scheme, Tensors

_WAY_OUT = "lower its rank, exclude the layers, or calibrate on more images"


def joint_fit(
    family: Family, scheme: Scheme, targets: Sequence[Target], *, seed: int, sweeps: int
) -> tuple[Tensors, list[Tensors]]:
    """Fit a family; the arguments are those of `Scheme.share`.

    Raises:
        NumericsError: KD703 for a target or a fit that is not finite, as of activations that vanish or overflow.
    """
    for name, target in zip(family.members, targets, strict=True):
        if not (math.isfinite(target.weight) and math.isfinite(target.energy)):
            raise _error(family, f"the output energy or the sensitivity of {name} is not finite")
    try:
        shared, adapters = scheme.share(targets, seed=seed, sweeps=sweeps)
    except (NumericsError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise _error(family, "its least-squares problem is singular") from error
    parts = [("its shared tensors", shared), *zip(family.members, adapters, strict=True)]
    broken = [where for where, part in parts for tensor in part.values() if not tensor.isfinite().all()]
    if broken:
        raise _error(family, f"the fit of {broken[0]} is not finite")
    return shared, adapters


def is_wide(family: Family, layers: Sequence[Layer]) -> bool:
    """Whether the matrices of a family's fit are so large that one operation uses all cores.

    Other families are fitted side by side.
    """
    members = frozenset(family.members)
    return any(layer.patch > FULL_METRIC_PATCH for layer in layers if layer.name in members)


def _error(family: Family, why: str) -> NumericsError:
    more = f" and {len(family.members) - 1} more" if len(family.members) > 1 else ""
    return NumericsError("KD703", f"family of {family.members[0]}{more}: {why}; {_WAY_OUT}")
