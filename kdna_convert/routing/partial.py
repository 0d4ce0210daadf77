"""PAD-Net: only some of a layer's filters depend on the input. The others stay static.

    filter o of W(x) = that of another routing, for the ceil(ratio * out) dynamic filters;  W_o for the others

Source: He et al., PAD-Net: An Efficient Framework for Dynamic Networks, ACL 2023 (arXiv 2211.05528). The source masks
single weights; its masks are dense, so that nothing is saved. Here whole filters are dynamic, and the other routing
stores parameters for these only.
Cost: that of the other routing at a layer with this number of filters, and an index per filter. Exact at the start, as
the other routing is.
For nets that gain from dynamic layers but cannot pay for them in full. Loses to the other routing if parameters are
free: its mixing costs less, its convolution as much.

The dynamic filters are those of the largest norm, until dynamic_filters.py chooses them from calibration images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil
from typing import ClassVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ..core.errors import RecipeError, reason_of
from ..core.specs import Layer, Options
from .cond import Cond
from .dyconv import DyConv
from .experts import TOO_FEW
from .modulation import Modulation
from .omni import Omni
from .router import Router
from .routing import Routing
from .supported import can_mix

# The routings that can be partial: they neither replace the layer's input nor need modules beside it.
WHOLE: dict[str, type[Routing]] = {Omni.name: Omni, Cond.name: Cond, DyConv.name: DyConv}


@dataclass(frozen=True)
class Partial(Routing):
    """Options: `of`, the other routing, its name and its options as in a recipe; `ratio`, the dynamic share, (0, 1]."""

    name: ClassVar[str] = "partial"
    ungrouped: ClassVar[str] = TOO_FEW
    of: Options = field(default_factory=lambda: {"name": DyConv.name})
    ratio: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise RecipeError("KD203", f"routing partial: ratio must be above 0 and at most 1, got {self.ratio:g}")
        self.whole()

    def whole(self) -> Routing:
        """The other routing.

        Raises:
            RecipeError: KD202 for an unknown option, KD203 for a wrong value or a routing that cannot be partial.
        """
        name, options = self.of.get("name"), {key: value for key, value in self.of.items() if key != "name"}
        if name not in WHOLE:
            raise RecipeError("KD203", f"routing partial: `of` must name one of {', '.join(WHOLE)}, got {name!r}")
        names = [option.name for option in fields(WHOLE[name])]
        for key in options.keys() - names:
            raise RecipeError("KD202", f"routing partial: {name} has no option {key!r}; it has {', '.join(names)}")
        try:
            adapter: TypeAdapter[Routing] = TypeAdapter(WHOLE[name])
            return adapter.validate_python(options, strict=False)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {reason_of(first)}, got {first['input']!r}"
            raise RecipeError("KD203", f"routing partial: of {name}: {problem}") from None

    def can_route(self, layer: Layer) -> str | None:
        code = can_mix(layer)
        if code is None and layer.groups > 1:
            return "KD132"
        return code or self.whole().can_route(self.dynamic(layer))

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        by_name = {layer.name: layer for layer in layers}
        groups = self.whole().groups([self.dynamic(layer) for layer in layers], model)
        return [tuple(by_name[layer.name] for layer in group) for group in groups]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        rows = [self.dynamic(layer) for layer in layers]
        chosen = [_largest(weight, row.out_channels) for weight, row in zip(weights, rows, strict=True)]
        starts = [None if weight is None else weight[index] for weight, index in zip(weights, chosen, strict=True)]
        whole = self.whole().build(rows, starts, seeds)
        return [PartialRouter(router, index) for router, index in zip(whole, chosen, strict=True)]

    def macs(self, layers: Sequence[Layer]) -> int:
        return self.whole().macs([self.dynamic(layer) for layer in layers])

    def dynamic(self, layer: Layer) -> Layer:
        """The layer as if it had only its dynamic filters."""
        return replace(layer, shape=(ceil(self.ratio * layer.out_channels), *layer.shape[1:]))


class PartialRouter(Router):
    """Another router, `whole`, on the filters in `index` (int64, ascending)."""

    index: Tensor

    def __init__(self, whole: Router, index: Tensor) -> None:
        super().__init__(whole.spatial)
        self.whole = whole
        self.register_buffer("index", index)

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        rows = weight[self.index]
        modulation = self.whole(x, rows)
        return Modulation(outputs=self._outputs(modulation, len(weight)), **self._kernels(modulation, rows, weight))

    def _kernels(self, modulation: Modulation, rows: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """The layer's kernels: a sum of static ones if the input channels have no factors."""
        terms = modulation.terms() if modulation.inputs is None else None
        if terms is not None:
            mix, kernels = terms
            static = weight.index_fill(0, self.index, 0.0)[None]
            dynamic = kernels.new_zeros(len(kernels), *weight.shape).index_copy(1, self.index, kernels)
            return {"mix": torch.cat([torch.ones_like(mix[:, :1]), mix], 1), "kernels": torch.cat([static, dynamic])}
        kernel = modulation.kernel_of(rows)
        if modulation.inputs is not None:
            kernel = kernel * modulation.inputs[:, None].reshape(len(modulation.inputs), 1, -1, *[1] * self.spatial)
        every = weight.expand(len(kernel), *weight.shape).to(kernel.dtype)
        return {"kernel": every.index_copy(1, self.index, kernel)}

    def _outputs(self, modulation: Modulation, filters: int) -> Tensor | None:
        if modulation.outputs is None:
            return None
        ones = modulation.outputs.new_ones(len(modulation.outputs), filters)
        return ones.index_copy(1, self.index, modulation.outputs)

    def is_identity(self) -> bool:
        return self.whole.is_identity()


def _largest(weight: Tensor | None, count: int) -> Tensor:
    """The indices of the filters of the largest norm, ascending; the first ones if there are no weights."""
    if weight is None:
        return torch.arange(count)
    norms = torch.linalg.vector_norm(weight.detach().flatten(1), dim=1)
    index: Tensor = norms.topk(count).indices.sort().values
    return index.cpu()
