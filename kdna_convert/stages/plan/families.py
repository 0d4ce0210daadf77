"""Families of a recipe: layers that share tensors, before their sizes are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from ...core.errors import ModelError, RecipeError
from ...core.specs import Family, Layer, product
from ...inputs.recipe import Assignment, inclusion
from ...schemes import SCHEMES, make, scheme_of
from ..analyze.groups import group_layers
from ..analyze.targets import shapes_of
from .costs import stored_tensors

# The number of each layer's cluster.
Clusters = Callable[[Sequence[Layer]], Sequence[int]]


def form_families(
    layers: Sequence[Layer], assignments: Sequence[Assignment], clusters: Clusters | None = None
) -> tuple[tuple[Layer, ...], tuple[Family, ...]]:
    """Form families without a size: layers of one scheme, with equal options and kernels that can share.

    Args:
        layers: The surveyed layers.
        assignments: What the recipe says about each of them.
        clusters: Divides such a group further, by similarity. The family of a recipe rule is never divided.

    Returns:
        The layers and the families, in the order of the layers. A layer has the reason KD109 or KD110 if no size of its
        family is smaller than the dense kernels.

    Raises:
        RecipeError: KD203 if the kernels of a rule's family cannot share.
        ModelError: KD306 if no layer is left to convert.
    """
    by_name = {assignment.layer: assignment for assignment in assignments}
    active = [layer for layer in layers if by_name[layer.name].reason is None]
    groups = group_layers(active, lambda layer: _key(layer, by_name[layer.name]), at_least=1)
    families = [
        _family(part, by_name[part[0].name])
        for members in groups.values()
        for part in _divided(members, by_name, clusters)
    ]
    reasons = {name: reason for family in families if (reason := no_saving(family, layers)) for name in family.members}
    families = [family for family in families if family.members[0] not in reasons]
    if not families and all(assignment.reason != "KD115" for assignment in assignments):
        raise _none_left([replace(one, reason=by_name[one.name].reason or reasons.get(one.name)) for one in layers])
    order = {layer.name: place for place, layer in enumerate(layers)}
    explained = tuple(replace(layer, reason=reasons.get(layer.name, layer.reason)) for layer in layers)
    return explained, tuple(sorted(families, key=lambda family: order[family.members[0]]))


def _none_left(layers: Sequence[Layer]) -> ModelError:
    """The error if a recipe converts nothing: how many layers have which reason, and what to include."""
    counts = Counter(layer.reason for layer in layers)
    why = ", ".join(f"{count} {code}" for code, count in sorted(counts.items(), key=str)) or "it has none"
    more = inclusion(layers) or ("; `kdna explain CODE` gives the reason" if layers else "")
    return ModelError("KD306", f"no layer of this model can be converted by this recipe ({why}){more}")


def no_saving(family: Family, layers: Sequence[Layer]) -> str | None:
    """The code (KD109, KD110) if no size of the family is smaller than its dense kernels, else None."""
    scheme, shapes = scheme_of(family), shapes_of(family, layers)
    smallest = replace(family, options={**family.options, scheme.size: scheme.smallest})
    stored = sum(product(spec.shape) for spec in stored_tensors(smallest, scheme.layout(shapes), "F32"))
    if stored < sum(map(product, shapes)):
        return None
    return "KD109" if scheme.shares and len(shapes) == 1 else "KD110"


def _key(layer: Layer, assignment: Assignment) -> Hashable:
    """Layers with equal keys can be in one family."""
    if assignment.family is not None:
        return assignment.family
    scheme = make(_scheme(assignment), assignment.options)
    shape = scheme.group(layer.shape) if scheme.shares else layer.name
    options = repr(sorted(assignment.options.items()))
    return scheme.name, shape, layer.groups if layer.groups > 1 else 1, options


def _divided(
    members: Sequence[Layer], by_name: Mapping[str, Assignment], clusters: Clusters | None
) -> list[Sequence[Layer]]:
    """A group as one family or several."""
    assignment = by_name[members[0].name]
    if assignment.family is not None:
        _require_sharing(members, assignment, assignment.family)
    elif clusters is not None and len(members) > 1 and SCHEMES[_scheme(assignment)].shares:
        labels = clusters(members)
        return [
            [member for member, own in zip(members, labels, strict=True) if own == label]
            for label in dict.fromkeys(labels)
        ]
    return [members]


def _require_sharing(members: Sequence[Layer], assignment: Assignment, rule: str) -> None:
    scheme = make(_scheme(assignment), assignment.options)
    odd = [layer for layer in members if scheme.group(layer.shape) != scheme.group(members[0].shape)]
    if odd and scheme.shares:
        pair = f"{members[0].name} {list(members[0].shape)} and {odd[0].name} {list(odd[0].shape)}"
        raise RecipeError("KD203", f"{rule}.family: {scheme.name} cannot share between {pair}; leave `family` out")


def _family(members: Sequence[Layer], assignment: Assignment) -> Family:
    return Family(
        scheme=_scheme(assignment),
        members=tuple(layer.name for layer in members),
        options=dict(assignment.options),
    )


def _scheme(assignment: Assignment) -> str:
    return assignment.scheme or ""  # never empty if the layer has no reason
