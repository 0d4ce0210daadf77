"""A family opened: its shared tensors, and a layer of it before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from ...core.amounts import count, dimensions, percent
from ...core.specs import Family, Plan
from ...schemes import scheme_of, size_of
from ..chart import SERIES, TIP, chart
from ..material import Material
from ..part import Column, Part, filled, table
from ..picture import FamilyPictures, MemberPictures, Picture, TensorPicture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Points of a curve that can be focused.
_POINTS = 9
_COLUMNS = (
    Column("tensor"),
    Column("shape"),
    *(Column(title, True) for title in ("numbers", "smallest", "largest", "norm")),
)


@dataclass(frozen=True)
class Child:
    """A layer of a family: its pictures with their captions, and the tensors of its own. The worst is shown first."""

    name: str
    error: float | None
    note: str
    pictures: Sequence[tuple[str, Picture]]
    adapter: Sequence[tuple[str, Picture]]
    tensors: Markup


@dataclass(frozen=True)
class Opened:
    """A family as it is shown."""

    title: str
    shared: Sequence[tuple[str, Picture]]
    tensors: Markup | None
    curve: Markup | None
    curve_note: str
    children: Sequence[Child]
    worst: int
    left_out: int


def families(material: Material) -> Part | None:
    """The families of a conversion. None for a page of something else."""
    plan, title = material.plan, "A family opened"
    if plan is None:
        return None
    if not plan.families:
        why = "No layer shares tensors with another: this net was not converted for fewer parameters."
        return Part("families", title, f"{why} `kdna convert MODEL --target-params 0.5` makes families.")
    if not material.families:
        return Part("families", title, f"The tensors were not opened: {material.missing or 'the net has none'}.")
    errors = {name: error for fit in _fits(material) for name, error in fit.items()}
    places = {family.members[0]: place for place, family in enumerate(plan.families)}
    opened = [_opened(each, plan, places[each.owner], errors) for each in material.families]
    return Part("families", title, _sentence(plan, material), filled("families.html", families=opened))


def _fits(material: Material) -> list[dict[str, float]]:
    return [fit.errors for fit in (material.report.families if material.report else None) or ()]


def _sentence(plan: Plan, material: Material) -> str:
    what = "What the layers of a family share, and a layer of it before and after, as pictures: grey is zero, white is"
    what = f"{what} positive, black negative."
    if len(material.families) < len(plan.families):
        shown = f"{len(material.families)} of {len(plan.families)} families"
        what = f"{what} {shown} are here, the largest and those with the largest error."
    before = all(member.before for each in material.families for member in each.members)
    return what if before else f"{what} The kernels before are missing: {material.missing}."


def _opened(pictures: FamilyPictures, plan: Plan, place: int, errors: Mapping[str, float]) -> Opened:
    family = plan.families[place]
    shapes = {layer.name: layer.params for layer in plan.layers}
    whole, stored = sum(shapes.get(name, 0) for name in family.members), plan.stored.get(pictures.owner)
    kept = f", {percent(stored / whole)} of its parameters kept" if stored is not None and whole else ""
    members = "1 layer" if len(family.members) == 1 else f"{len(family.members)} layers"
    curve = plan.nested.get(pictures.owner, ())
    children = [_child(member, errors.get(member.name)) for member in pictures.members]
    return Opened(
        title=f"family {place + 1}: {family.scheme}, {members} from {pictures.owner}{kept}",
        shared=_drawn(pictures.shared),
        tensors=_tensors(pictures.shared, f"Shared tensors of family {place + 1}") if pictures.shared else None,
        curve=_curve(curve, family) if len(curve) > 1 else None,
        curve_note=f"Error of the outputs of family {place + 1} with its first directions alone, by their number. "
        f"It was given {size_of(scheme_of(family))}, the large point.",
        children=children,
        worst=max(range(len(children)), key=lambda child: children[child].error or 0.0),
        left_out=len(family.members) - len(pictures.members),
    )


def _child(member: MemberPictures, error: float | None) -> Child:
    notes = [f"Kernel {dimensions(member.shape)}"]
    if member.changed is not None:
        notes.append(f"the difference has {percent(member.changed)} of the kernel's energy")
    if error is not None:
        notes.append(f"the relative error of the layer's output was {error:.2e} after the fit")
    pictures = [("before", member.before), ("after", member.after), ("difference", member.difference)]
    return Child(
        name=member.name,
        error=error,
        note="; ".join(notes) + ".",
        pictures=[(name, picture) for name, picture in pictures if picture is not None],
        adapter=_drawn(member.adapter),
        tensors=_tensors(member.adapter, f"Tensors of {member.name} alone") if member.adapter else Markup(),
    )


def _drawn(tensors: Sequence[TensorPicture]) -> list[tuple[str, Picture]]:
    return [(each.letter, each.picture) for each in tensors if each.picture is not None]


def _tensors(tensors: Sequence[TensorPicture], caption: str) -> Markup:
    """A row for each tensor: its size and its values; of indices, how many different ones."""
    rows = [
        (each.letter, dimensions(each.shape), count(each.count), *(f"{value:.3g}" for value in each.values))
        if each.distinct is None
        else (each.letter, dimensions(each.shape), count(each.count), f"{count(each.distinct)} indices", "", "")
        for each in tensors
    ]
    return table(_COLUMNS, rows, caption)


def _curve(errors: Sequence[float], family: Family) -> Markup:
    """The error by the number of directions, with the size that was chosen."""
    size = size_of(scheme_of(family))
    marked = sorted({round(place * (len(errors) - 1) / (_POINTS - 1)) for place in range(_POINTS)} | {size - 1})
    marked = [place for place in marked if 0 <= place < len(errors)]
    tips = {f"{TIP}curve-{place}": f"{place + 1}: {errors[place]:.3g}" for place in marked}
    label = f"error of the family of {family.members[0]} by its {scheme_of(family).size}"
    return chart(partial(_draw, errors, marked, size), label, tips, (5.5, 2.4))


def _draw(errors: Sequence[float], marked: Sequence[int], size: int, axes: Axes) -> None:
    axes.plot(range(1, len(errors) + 1), errors, color=SERIES[0])
    for place in marked:
        chosen = place == size - 1
        color, points = (SERIES[1], 7) if chosen else (SERIES[0], 4)
        axes.plot([place + 1], [errors[place]], "o", ms=points, color=color, gid=f"{TIP}curve-{place}")
    axes.set_xlabel("directions")
    axes.set_ylabel("error")
    axes.set_ylim(bottom=0)
