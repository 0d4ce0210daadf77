"""Layers whose weight is computed from the tensors of a family: derive, fold, factor.

# Note [Borrowed tensors]
# The shared tensors of a family are in one ParameterDict, registered by its first member, the owner. The other members
# reference it by an attribute that nn.Module does not register. So each tensor has one name in the state dict, an
# optimizer and an EMA get it once, `save_file(state_dict)` works, replacing it in the owner (loading with assign=True,
# to_empty, half) replaces it for all members, a deepcopy keeps the tie (its memo covers both references), and a part of
# the model without the owner still works.
#
# Note [Own fold]
# parametrize gives a layer its own class, which deepcopies of the layer share. remove_parametrizations edits that
# class, which breaks every copy, and leaves a buffer where the weight was frozen. Fold changes the instance only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from math import inf, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..core.errors import FolderError, PlanError
from ..core.linalg import Kronecker, Target
from ..core.specs import Family, Layer, Plan, Shape, SymbolicShape
from ..core.standardize import Standardized, encode, standardize, standardized_by_name
from ..routing import attach_routes, detach, routers
from ..schemes import Scheme, Tensors, concrete, scheme_of
from .chain import build_chain, is_bare, is_chain, is_chainable, own_class
from .standardizing import is_standardizing


class Derived(nn.Module):
    """Computes one layer's weight from its family's `shared` tensors and its own `adapter` (Note [Borrowed tensors]).

    `shape` is that of the weight; `position` is its index among the layer's parameters, where `fold` restores it.
    `standardized`: the tensors describe the kernel as it runs, and the weight is what the layer standardizes into it.
    """

    shared: nn.ParameterDict

    def __init__(
        self,
        scheme: Scheme,
        shape: Shape,
        position: int,
        owner: Derived | None,
        standardized: Standardized | None = None,
    ) -> None:
        super().__init__()
        self.scheme = scheme
        self.shape = shape
        self.position = position
        self.standardized = standardized
        self.held: Tensor | None = None
        self.adapter = nn.ParameterDict()
        if owner is None:
            self.shared = nn.ParameterDict()
        else:
            object.__setattr__(self, "shared", owner.shared)

    @property
    def is_owner(self) -> bool:
        return "shared" in self._modules

    def tensors(self) -> tuple[Tensors, Tensors]:
        """(shared, adapter). The shared tensors get the adapter's dtype and device: members may differ in these."""
        shared, adapter = dict(self.shared.items()), dict(self.adapter.items())
        if adapter:
            like = next(tensor for tensor in adapter.values() if tensor.is_floating_point())
            shared = {letter: tensor.to(like) for letter, tensor in shared.items()}
        return shared, adapter

    def forward(self) -> Tensor:
        return self.weight_of(self.scheme.expand(*self.tensors(), self.shape)) if self.held is None else self.held

    def weight_of(self, kernel: Tensor) -> Tensor:
        """The layer's weight for the kernel that the tensors describe."""
        return kernel if self.standardized is None else encode(kernel, self.standardized)

    def factors(self) -> list[Tensor] | None:
        return self.scheme.factors(*self.tensors(), self.shape)

    def right_inverse(self, weight: Tensor) -> tuple[()]:
        """Called by `layer.weight = W`: refit the adapter to W with fixed shared tensors and equal input directions.

        Returns no tensor, so that parametrize stores no original. On registration there is no adapter yet.
        """
        if len(self.adapter):
            taps = prod(self.shape[2:])
            kernel = weight.detach().double().cpu()
            if self.standardized is not None:
                kernel = standardize(kernel, *self.standardized)
            kernel_on = kernel.flatten(1)
            identity = Kronecker(kernel_on.new_ones(self.shape[1]).diag(), kernel_on.new_ones(taps).diag())
            self.refit(Target(self.shape, kernel_on, kernel_on, identity, 1.0))
        return ()

    def refit(self, target: Target, *, choose: bool = False) -> None:
        """Fit the adapter, if there is one, to this least-squares problem, in place. Shared tensors do not change.

        `choose`: choose indices again too.
        """
        if not len(self.adapter):
            return
        shared, adapter = ({k: t.detach().double().cpu() for k, t in part.items()} for part in self.tensors())
        fit = self.scheme.reassign if choose else self.scheme.fit
        fitted = fit(shared, adapter, target)
        with torch.no_grad():
            for letter, tensor in fitted.items():
                self.adapter[letter].copy_(tensor)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "held": None}  # a copy must not keep a cached weight of its source

    def extra_repr(self) -> str:
        return f"{self.scheme}, shape={self.shape}, {'owner' if self.is_owner else 'borrows the shared tensors'}"


def derive(
    model: nn.Module, family: Family, shared: Tensors, adapters: Sequence[Tensors], layers: Sequence[Layer] = ()
) -> nn.Module:
    """Express the weights of a family's members by these tensors, in place, and return the model.

    The tensors are copied, to the dtype and device of the layer that stores them.

    Args:
        model: The net.
        family: The layers, the scheme and its options.
        shared: The shared tensors, by letter.
        adapters: The tensors of each member, by letter.
        layers: The layers of the plan. Where they say that a member standardizes its weight, its tensors describe the
            kernel as it runs. Otherwise they describe the stored weight.

    Raises:
        PlanError: KD503 for a layer or option that does not exist, KD105 for a weight that is already computed. Nothing
            is changed.
    """
    scheme = scheme_of(family)
    members = [
        _derivable(model, name, {*shared, *adapter}) for name, adapter in zip(family.members, adapters, strict=True)
    ]
    standardizers = standardized_by_name(layers)
    standardized = [standardizers.get(name) for name in family.members]
    for name, member, how in zip(family.members, members, standardized, strict=True):
        if how is not None and not (is_standardizing(member) and all(0 < part < inf for part in how)):
            raise PlanError("KD503", f"{name}: the plan standardizes the weight of a {type(member).__name__} by {how}")
    owner = None
    for layer, adapter, how in zip(members, adapters, standardized, strict=True):
        weight = layer.weight
        derived = Derived(scheme, tuple(weight.shape), list(layer._parameters).index("weight"), owner, how)
        if parametrize.is_parametrized(layer):  # copies of the layer share the class, which gets a property for weight
            layer.__class__ = _class_like(layer)
        parametrize.register_parametrization(layer, "weight", derived, unsafe=True)
        layer.parametrizations.train(layer.training)
        derived.adapter.update(_parameters(adapter, weight))
        if owner is None:
            derived.shared.update(_parameters(shared, weight))
            owner = derived
    return model


def derive_empty(model: nn.Module, plan: Plan) -> nn.Module:
    """Give a model the structure of a plan, in place, with uninitialized tensors for `load_stored` to fill.

    Raises PlanError KD503 when the plan names a layer that the model lacks or has in another shape.
    """
    shapes = {layer.name: layer.shape for layer in plan.layers}
    for family in plan.families:
        actual = [require_derivable(model, name, shapes.get(name)) for name in family.members]
        scheme = scheme_of(family)
        layout = scheme.layout(actual)
        shared, *adapters = (_empty(part, scheme, layout.indices) for part in (layout.shared, *layout.adapters))
        derive(model, family, shared, adapters, plan.layers)
    return attach_routes(model, plan.routes, plan.seed)


def require_derivable(model: nn.Module, name: str, shape: Shape | None) -> Shape:
    """The shape of a layer's weight, which a plan has as `shape`, None for any.

    Raises PlanError KD503 for a layer that does not exist or has another shape, KD105 for a weight that is computed.
    """
    own = tuple(_derivable(model, name, set()).weight.shape)
    if own != (own if shape is None else shape):
        raise PlanError("KD503", f"{name}: the plan has a kernel of shape {shape}, the model {own}")
    return own


def derived_layers(model: nn.Module) -> dict[str, Derived]:
    """The derived weights of a model by the name of their layer, in module order."""
    return {
        name: module.parametrizations.weight[0]
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module, "weight") and isinstance(module.parametrizations.weight[0], Derived)
    }


def fold(model: nn.Module) -> nn.Module:
    """Turn every derived weight into an ordinary parameter, in place, and return the model. See Note [Own fold].

    The state dict then has the original's keys, order and dtypes.

    Raises:
        FolderError: KD606 if a routing depends on the input. Nothing is changed.
    """
    for name, router in routers(model).items():
        if not router.is_identity():
            way_out = "use the converted net unfolded, or `kdna freeze` it"
            raise FolderError("KD606", f"{name}: its routing depends on the input; {way_out}")
    fold_weights(model)
    for name in routers(model):
        detach(model.get_submodule(name))
    return model


def fold_weights(model: nn.Module) -> nn.Module:
    """Fold the weights only, in place. Routers stay."""
    for layer, derived in [(model.get_submodule(name), derived) for name, derived in derived_layers(model).items()]:
        _fold_layer(layer, derived)
    return model


def factor(model: nn.Module) -> nn.Module:
    """Replace every derived layer by the chain of plain layers it factors into, in place, and return the model.

    A chain is, for example, a pointwise, a depthwise and a pointwise convolution. It still has the `weight` and the
    settings of the layer, for nets that read them. The layers that `unfactored` lists are folded instead. Routers that
    are the identity are removed.
    """
    for name, router in routers(model).items():
        if router.is_identity():
            detach(model.get_submodule(name))
    folded = unfactored(model)
    chains: dict[nn.Module | None, nn.Module] = {}
    for name, derived in derived_layers(model).items():
        layer = model.get_submodule(name)
        kernels = None if name in folded else derived.factors()
        chain = kernels and build_chain(own_class(layer), layer, kernels)
        if chain:
            chains[layer] = chain
        else:
            _fold_layer(layer, derived)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in chains:
                parent._modules[name] = chains[child]
    return chains.get(model, model)


def unfactored(model: nn.Module) -> dict[str, str]:
    """The derived layers that `factor` folds, with the code of the reason (KD141-KD144)."""
    routed = {name for name, router in routers(model).items() if not router.is_identity()}
    reasons = {}
    for name, derived in derived_layers(model).items():
        layer = model.get_submodule(name)
        kernels = derived.factors() if is_chainable(layer) else None
        if name in routed:
            reasons[name] = "KD143"
        elif not is_bare(layer):
            reasons[name] = "KD144"
        elif kernels is None or not is_chain(own_class(layer), layer, kernels):
            reasons[name] = "KD141"
        elif derived.scheme.macs(derived.shape, prod(getattr(layer, "stride", ())), 1) >= prod(derived.shape):
            reasons[name] = "KD142"
    return reasons


@contextmanager
def cached(model: nn.Module) -> Iterator[nn.Module]:
    """Compute each derived weight once, without gradient, for the duration of the context.

    parametrize.cached() would give a deepcopy the weights of its source: its key belongs to the class that they share.
    """
    derived = list(derived_layers(model).values())
    try:
        with torch.no_grad():
            for weight in derived:
                weight.held = weight().detach()
        yield model
    finally:
        for weight in derived:
            weight.held = None


def _derivable(model: nn.Module, name: str, letters: Set[str]) -> Any:
    """The layer of that name. Raises PlanError if its weight cannot be replaced by tensors of these names."""
    try:
        layer: Any = model.get_submodule(name)
    except AttributeError:
        raise PlanError("KD503", f"the model has no layer {name!r}") from None
    if not isinstance(getattr(layer, "weight", None), Tensor):
        raise PlanError("KD503", f"{name}: a {type(layer).__name__} has no weight to convert")
    if "weight" not in layer._parameters:
        raise PlanError(
            "KD105", f"{name}: the layer already computes its weight; remove that first, or exclude the layer"
        )
    taken = letters & {*layer._parameters, *layer._buffers, *layer._modules}
    if taken:
        raise PlanError("KD503", f"{name}: the layer already has tensors named {', '.join(sorted(taken))}; exclude it")
    return layer


def _class_like(layer: nn.Module, without: str | None = None) -> type[nn.Module]:
    """A class of its own for a parametrized layer, with the same properties but one."""
    cls = type(layer)
    return type(cls.__name__, cls.__bases__, {key: value for key, value in vars(cls).items() if key != without})


def _parameters(tensors: Tensors, like: Tensor) -> dict[str, nn.Parameter]:
    """Contiguous copies as parameters, since slices of an SVD share their storage.

    A tensor without elements is not stored. Integers keep their dtype and get no gradient.
    """
    copies = {
        letter: _copy(tensor.to(like if tensor.is_floating_point() else like.device))
        for letter, tensor in tensors.items()
        if tensor.numel()
    }
    return {letter: nn.Parameter(copy, copy.is_floating_point()) for letter, copy in copies.items()}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _empty(part: dict[str, SymbolicShape], scheme: Scheme, indices: Sequence[str]) -> Tensors:
    """Empty tensors for a family; indices are zeros, so that they are valid before they are loaded."""
    sizes = {letter: concrete(shape, scheme) for letter, shape in part.items()}
    return {
        letter: torch.zeros(size, dtype=torch.int16) if letter in indices else torch.empty(size)
        for letter, size in sizes.items()
        if 0 not in size
    }


def _fold_layer(layer: Any, derived: Derived) -> None:
    weight = nn.Parameter(_copy(layer.weight))
    if set(layer.parametrizations) == {"weight"}:
        layer.__class__ = own_class(layer)
        del layer.parametrizations
    else:
        layer.__class__ = _class_like(layer, without="weight")
        del layer.parametrizations["weight"]
    parameters = [*layer._parameters.items()]
    parameters.insert(derived.position, ("weight", weight))
    layer._parameters.clear()
    layer._parameters.update(parameters)
