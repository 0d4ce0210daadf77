"""State dicts with the versions of a net's modules, which a file of tensors alone does not keep."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def with_versions(state: Mapping[str, Tensor], model: nn.Module) -> OrderedDict[str, Tensor]:
    """A copy of `state` as a state dict of this model's version, so that load_state_dict converts nothing.

    Without the versions, torch takes the tensors for those of the oldest release of every module. A module may convert
    such tensors, and torchvision's MNASNet refuses them. Normalizations stay without a version: older files lack their
    counter, which torch then adds.
    """
    versioned = OrderedDict(state)
    modules = model.named_modules(remove_duplicate=False)
    versions = {name: {"version": each._version} for name, each in modules if not isinstance(each, _NormBase)}
    versioned._metadata = versions  # type: ignore[attr-defined]
    return versioned
