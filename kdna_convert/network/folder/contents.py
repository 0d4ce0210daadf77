"""What a converted folder holds, read and checked before anything is built from it.

Sums prove only that the files are those that someone summed, so every value is checked as well: bounds, names, shapes
and options, then the plan against the tensors, then both against the net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ...core.errors import CheckpointError, DataError, FolderError, PlanError
from ...core.regular import read_regular
from ...core.specs import Family, Options, Plan, Shape, TensorSpec, from_json
from ...core.tensorfile import load_tensors, read_header
from ...routing import routing_of
from ...schemes import Scheme, scheme_of, size_of
from ..allocation import AllocatingAtMost
from ..derive import derive_empty, require_derivable
from ..inference import is_packed, own_example
from ..packed import CODED, announced, unpack
from ..stored import DTYPES, family_specs, folded_tensors, load_stored, require_fit, stored_name, stored_specs
from .record import CARD, CONFIG, FILES, PLAN, RECIPE, REPORT, TENSORS, Record, check_file, read_record
from .report import Report, from_plain

T = TypeVar("T")

# The axes of a kernel: (out, in), and up to three of positions.
_AXES = range(2, 6)
_MOST_ELEMENTS = 2**40
_MOST_SEED, _MOST_OPTION = 2**63, 2**20
# A family stores less than its dense kernels, and a routing at most a few times the net.
_FAMILY_SHARE, _ROUTING_SHARE = 4, 64


@dataclass(frozen=True)
class Contents:
    """The files of a folder, each checked by itself and the plan against the tensors.

    `specs` are the tensors that `tensors` returns, which decodes them; `coded` is the coded file, None for plain ones.
    """

    folder: Path
    record: Record
    plan: Plan
    recipe: str
    report: Report
    specs: dict[str, TensorSpec]
    coded: bytes | None

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors. Raises FolderError KD603 or KD608 if they are damaged."""
        tensors = _plain(self.folder) if self.coded is None else unpack(self.coded)
        for family in self.plan.families:
            _check_indices(self.folder, scheme_of(family), family, self._shapes(family), tensors)
        return tensors

    def _shapes(self, family: Family) -> list[Shape]:
        shapes = {layer.name: layer.shape for layer in self.plan.layers}
        return [shapes[name] for name in family.members]


def read_contents(folder: Path) -> Contents:
    """Read a folder. The model card may differ from the record, since its owner may edit it.

    Raises:
        FolderError: KD602 (not written by kdna), KD603 (damaged; the message names the file), KD605 (written by a newer
            kdna), KD608 (the coded tensors are damaged).
        PlanError: KD503 (this version has no such scheme or routing).
        RecipeError: KD202, KD203 (a scheme has no such option).
    """
    record = read_record(folder)
    for name in FILES:
        if name != CARD:
            check_file(folder, record, name)
    plan = _parse(folder / PLAN, lambda text: from_json(Plan, text))
    if plan.model != record.model:
        raise FolderError("KD603", f"{folder} is damaged: its {CONFIG} and {PLAN} name different models; convert again")
    report = _parse(folder / REPORT, lambda text: from_plain(from_json(dict[str, Any], text)))
    recipe = _parse(folder / RECIPE, bytes.decode)
    try:
        specs = read_header(folder / TENSORS)
    except CheckpointError as error:
        raise FolderError("KD603", error.message) from error
    coded = None
    if [spec.name for spec in specs] == [CODED]:
        coded = _plain(folder)[CODED].contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        specs = announced(coded)
    contents = Contents(folder, record, plan, recipe, report, {spec.name: spec for spec in specs}, coded)
    if len(contents.specs) < len(specs):
        raise _damaged(folder / TENSORS, "it announces a tensor twice")
    if not {spec.dtype for spec in specs} <= {*DTYPES.values()}:
        raise _damaged(folder / TENSORS, "it has a dtype that kdna does not write")
    _check_plan(folder / PLAN, plan)
    for family in plan.families:
        _check_stored(folder, family, contents._shapes(family), contents.specs)
    return contents


def fill(model: nn.Module, contents: Contents) -> nn.Module:
    """Give the architecture the structure and the tensors of the folder, in place, and return it.

    Raises:
        FolderError: KD603, KD608 (damaged).
        PlanError: KD503 (the model has other layers).
        CheckpointError: KD303 (the model has other tensors).
    """
    plan, tables = contents.plan, _tables(model)
    require_fit(_expected(model, plan), contents.specs, _gates(plan))
    if plan.routes:
        _derive_routed(model, contents)
    else:
        derive_empty(model, plan)
    require_fit(stored_specs(model), contents.specs)
    load_stored(model, contents.tensors())
    _try_unusual(model, contents, tables)
    return model


def fill_folded(model: nn.Module, contents: Contents) -> nn.Module:
    """As `fill`, with ordinary weights, for a plan without routing."""
    tables = _tables(model)
    require_fit(_expected(model, contents.plan), contents.specs)
    load_stored(model, folded_tensors(contents.plan, contents.tensors()))
    _try_unusual(model, contents, tables)
    return model


def _plain(folder: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(folder / TENSORS)[0]
    except CheckpointError as error:
        raise FolderError("KD603", error.message) from error


def _parse(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(read_regular(path))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8 text") from None
    except ValidationError as error:
        raise _damaged(path, str(error).splitlines()[0]) from None


def _damaged(path: Path, reason: str) -> FolderError:
    return FolderError("KD603", f"{path} is damaged: {reason}; restore it or convert again")


def _check_plan(path: Path, plan: Plan) -> None:
    """Check the plan alone: each name once, possible kernels, families that their schemes can store."""
    if plan.version > 1:
        raise FolderError("KD605", f"{path} has format {plan.version}, this kdna reads up to 1; update kdna")
    if not 0 <= plan.seed < _MOST_SEED:
        raise _damaged(path, f"its seed is {plan.seed}")
    _once(path, "layer", [layer.name for layer in plan.layers])
    _once(path, "family's member", [name for family in plan.families for name in family.members])
    if not all(route.layers for route in plan.routes):
        raise _damaged(path, "it has a routing without layers")
    for options in [part.options for part in plan.families] + [part.options for part in plan.routes]:
        _check_options(path, options)
    for route in plan.routes:
        routing_of(route)
        _once(path, "route's layer", route.members)
        for layer in route.layers:
            if not _is_kernel(layer.shape) or layer.groups < 1:
                raise _damaged(path, f"{layer.name} has a kernel of shape {layer.shape} in {layer.groups} groups")
    shapes = {layer.name: layer.shape for layer in plan.layers}
    for family in plan.families:
        if not family.members or not all(_is_kernel(shapes.get(name, ())) for name in family.members):
            raise _damaged(path, f"the family {', '.join(family.members[:2])} has a layer without a kernel, or none")
        _check_family(path, family, [shapes[name] for name in family.members])


def _once(path: Path, what: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
    if twice is not None:
        raise _damaged(path, f"it has the {what} {twice} twice")


def _is_kernel(shape: Shape) -> bool:
    return len(shape) in _AXES and min(shape) > 0 and prod(shape) <= _MOST_ELEMENTS


def _check_options(path: Path, options: Options) -> None:
    for name, value in options.items():
        if isinstance(value, dict):
            _check_options(path, value)
        if isinstance(value, int | float) and not abs(value) <= _MOST_OPTION:
            raise _damaged(path, f"it has the option {name} at {value:g}")


def _check_family(path: Path, family: Family, shapes: Sequence[Shape]) -> None:
    scheme = scheme_of(family)
    owner = family.members[0]
    if scheme.shares and len({scheme.group(shape) for shape in shapes}) > 1:
        raise _damaged(path, f"{family.scheme} cannot share the kernels of {owner} and the other members of its family")
    if size_of(scheme) < scheme.smallest:
        raise _damaged(path, f"the family of {owner} has the {scheme.size} {size_of(scheme)}")
    stored = sum(prod(spec.shape) for spec in family_specs(family, shapes))
    if stored > _FAMILY_SHARE * sum(map(prod, shapes)):
        raise _damaged(path, f"the family of {owner} stores {stored:,} numbers, far more than its kernels have")


def _check_stored(folder: Path, family: Family, shapes: Sequence[Shape], specs: Mapping[str, TensorSpec]) -> None:
    """The tensors of a family have the shapes that the plan says, and those of one layer one dtype."""
    dtypes: dict[str, str] = {}
    for spec in family_specs(family, shapes):
        stored = specs.get(spec.name)
        if stored is None or stored.shape != spec.shape:
            has = f"has it in {stored.shape}" if stored else "lacks it"
            raise _damaged(folder / PLAN, f"it stores {spec.name} in {spec.shape}, and {TENSORS} {has}")
        layer = spec.name.rpartition(".")[0]
        if spec.dtype == "F32" and dtypes.setdefault(layer, stored.dtype) != stored.dtype:
            raise _damaged(folder / TENSORS, f"{spec.name} is {stored.dtype}, another of its layer {dtypes[layer]}")


def _check_indices(
    folder: Path, scheme: Scheme, family: Family, shapes: Sequence[Shape], tensors: Mapping[str, Tensor]
) -> None:
    """An index outside the family's bank would fail only when the net runs."""
    letters = scheme.layout(shapes).indices
    for name in (stored_name(member, letter) for member in family.members for letter in letters):
        low, high = (int(edge) for edge in tensors[name].aminmax())
        if low < 0 or high >= size_of(scheme):
            raise _damaged(folder / TENSORS, f"{name} has an index outside 0..{size_of(scheme) - 1}")


def _expected(model: nn.Module, plan: Plan) -> list[TensorSpec]:
    """What the model stores once its families are derived, without routers."""
    shapes = {layer.name: layer.shape for layer in plan.layers}
    members = [name for family in plan.families for name in family.members]
    for name in members:
        require_derivable(model, name, shapes[name])
    weights = {stored_name(name, "weight") for name in members}
    kept = [spec for spec in stored_specs(model) if spec.name not in weights]
    families = [(family, [shapes[name] for name in family.members]) for family in plan.families]
    return kept + [spec for family, own in families for spec in family_specs(family, own)]


def _gates(plan: Plan) -> list[str]:
    return [stored_name(name, "gate.") for route in plan.routes for name in route.members]


def _derive_routed(model: nn.Module, contents: Contents) -> None:
    """derive_empty for a plan with routings, which may describe routers of any size and form."""
    dense = sum(prod(spec.shape) for spec in stored_specs(model))
    modules = dict(model.named_modules())
    for layer in (layer for route in contents.plan.routes for layer in route.layers):
        module = modules.get(layer.name)
        weight, groups = getattr(module, "weight", None), getattr(module, "groups", 1)
        # An activation has no kernel: its shape is described by channels.
        if isinstance(weight, Tensor) and weight.ndim > 1 and (layer.shape, layer.groups) != (weight.shape, groups):
            own = f"{tuple(weight.shape)} in {groups} groups"
            raise PlanError("KD503", f"{layer.name}: the plan routes {layer.shape} in {layer.groups} groups, not {own}")
    try:
        with AllocatingAtMost(_ROUTING_SHARE * dense + 2**20):
            derive_empty(model, contents.plan)
    except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise _damaged(contents.folder / PLAN, f"its routing cannot be built ({_first_line(error)})") from error


def _tables(model: nn.Module) -> dict[str, Tensor]:
    """The tables of whole numbers that an architecture has built, such as the indices of relative positions."""
    return {name: buffer for name, buffer in model.named_buffers() if buffer.ndim and not buffer.is_floating_point()}


def _try_unusual(model: nn.Module, contents: Contents, tables: Mapping[str, Tensor]) -> None:
    """Run a net once if shapes do not tell whether it runs: routed, of several dtypes, or with tables not its own."""
    dtypes = {held.dtype for held in (*model.parameters(), *model.buffers()) if held.is_floating_point()}
    now = _tables(model)
    as_built = all(torch.equal(table, now[name]) for name, table in tables.items())
    if (len(dtypes) <= 1 and as_built and not contents.plan.routes) or is_packed(contents.record.data):
        return
    try:
        with torch.no_grad():
            model.eval()(own_example(model, contents.record.data))
    except (RuntimeError, IndexError) as error:
        raise _damaged(contents.folder / TENSORS, f"the net does not run with it ({_first_line(error)})") from error
    except DataError:
        pass  # KD409: a batch of one is no whole clip


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
