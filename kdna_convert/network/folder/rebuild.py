"""Build the architecture that a converted folder names, once trust.py permits it."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ...core.errors import FolderError, ModelError
from ...inputs.models.building import build
from .record import TENSORS
from .trust import Permit, untrusted

_DRAWS = frozenset({Tensor.uniform_, Tensor.normal_})
# What allocates the tensors of a net.
_ALLOCATE = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange, torch.linspace, torch.eye}
)
# The deepest nets of timm and torchvision have 2,000.
MOST_TENSORS = 3000
# Numbers of one result while a net is built, such as a table of relative positions, where an argument is _LARGE.
MOST_AT_ONCE, _LARGE = 2**24, 2000


def rebuild(permit: Permit, folder: Path) -> nn.Module:
    """The model that trust.py permits, on the CPU, float32, in eval mode, with uninitialized parameters.

    Raises:
        FolderError: KD607 (it cannot be built), KD611 (it is larger than is permitted).
    """
    try:
        with _Limited(permit.limit, folder), _Undrawn():
            model = build(permit.name, pretrained=False)
    except ModelError as error:
        raise FolderError(
            "KD607", f"{folder} was made from {permit.name.text}: {error.message}. Or build it yourself and pass model="
        ) from error
    return (model if _is_plain(model) else model.cpu().float()).eval()


def _is_plain(model: nn.Module) -> bool:
    """Whether the model is on the CPU in float32 already: checking is far cheaper than moving it."""
    held = chain(model.parameters(), model.buffers())
    return all(t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point()) for t in held)


class _Undrawn(TorchFunctionMode):
    """Skips random initialization, most of the time of building: stored tensors replace all parameters."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS and isinstance(args[0], nn.Parameter):
            return args[0]
        return func(*args, **(kwargs or {}))


class _Limited(TorchFunctionMode):
    """Within the block, FolderError KD611 is raised before a net is built that is larger than `limit` numbers."""

    def __init__(self, limit: int | None, folder: Path) -> None:
        super().__init__()
        self.limit, self.folder = limit, folder
        self.tensors = self.numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.limit is None:
            return func(*args, **kwargs)
        if func in _ALLOCATE:
            shape = {key: value for key, value in kwargs.items() if key not in ("generator", "out")}
            self.tensors += 1
            self.numbers += func(*args, **{**shape, "device": "meta"}).numel()
        if self.tensors > MOST_TENSORS or self.numbers > self.limit or _result_size(func, args, kwargs) > MOST_AT_ONCE:
            most = f"more than {self.limit:,} numbers or {MOST_TENSORS:,} tensors"
            raise untrusted(self.folder, f"names a net that is too large for its {TENSORS} ({most})")
        return func(*args, **kwargs)


def _result_size(func: Any, args: Any, kwargs: Any) -> int:
    """The numbers of a result that may be far larger than the arguments, such as a table of pairs; else 0."""
    name = func.__name__
    if name.endswith("_") or not any(isinstance(each, Tensor) and each.numel() >= _LARGE for each in tree_leaves(args)):
        return 0  # in place, an attribute, or at most _LARGE times _LARGE numbers
    try:
        result = func(*tree_map_only(Tensor, _meta, args), **tree_map_only(Tensor, _meta, kwargs))
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # it depends on the values
        return 0
    return max((each.numel() for each in tree_leaves(result) if isinstance(each, Tensor)), default=0)


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
