"""Build the architecture that a converted folder names, once trust.py permits it."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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


def rebuild(permit: Permit, folder: Path) -> nn.Module:
    """The model that trust.py permits, on the CPU, float32, in eval mode, with uninitialized parameters.

    Raises:
        FolderError: KD607 (it cannot be built), KD611 (it is larger than is permitted).
    """
    try:
        with Limited(permit.limit, folder), _Undrawn():
            model = build(permit.name, pretrained=False)
    except ModelError as error:
        raise FolderError(
            "KD607", f"{folder} was made from {permit.name.text}: {error.message}. Or build it yourself and pass model="
        ) from error
    return (model if _is_plain(model) else model.to("cpu", torch.float32)).eval()


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


class Limited(TorchFunctionMode):
    """Within the block, FolderError KD611 is raised before a net is built that is larger than `limit` numbers."""

    def __init__(self, limit: int | None, folder: Path) -> None:
        super().__init__()
        self.limit, self.folder = limit, folder
        self.tensors = self.numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.limit is not None and func in _ALLOCATE:
            shape = {key: value for key, value in kwargs.items() if key not in ("generator", "out")}
            self._count(func(*args, **{**shape, "device": "meta"}).numel(), self.limit)
        return func(*args, **kwargs)

    def _count(self, numbers: int, limit: int) -> None:
        self.tensors += 1
        self.numbers += numbers
        if self.tensors > MOST_TENSORS or self.numbers > limit:
            size = f"more than {limit:,} numbers in {MOST_TENSORS:,} tensors"
            raise untrusted(self.folder, f"names a net of {size}, too many for its {TENSORS}")
