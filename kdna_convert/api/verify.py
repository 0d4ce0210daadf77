"""The verb `verify`: what a folder says of itself, checked, computed again, measured again, or listed as a claim."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..core.errors import ModelError
from ..core.measurements import Divergence, Evaluation
from ..core.progress import as_progress
from ..core.specs import Layer, Plan, Progress, product
from ..inputs.data import Data
from ..network.chain import is_chainable
from ..network.derive import fold_weights
from ..network.folder import Check, Conversion, open_folder
from ..network.folder import verify as verify_folder
from ..network.folder.verify import broken, checked, unchecked
from ..network.inference import is_inside, is_packed, own_example
from ..network.stored import family_specs
from ..network.totals import totals
from ..routing import detach, routers, routing_of
from ..schemes import scheme_of
from ..stages.analyze.survey import survey
from .evaluate import evaluate
from .job import IN_FLOAT32
from .keywords import StageOptions, check_keywords
from .net_task import conversion_task

if TYPE_CHECKING:
    from typing_extensions import Unpack

# A measured agreement may be below the claimed one by so many standard deviations of their difference, and the
# measured KL above the claimed one by this factor and this much (nats): other images, the same net.
DEVIATIONS, KL_FACTOR, KL_SLACK = 4.0, 3.0, 0.01

# The fields of a layer that count the places where it runs.
_POSITIONS = {"in_positions", "out_positions"}


def verify(
    folder: str | Path,
    *,
    data: Data | str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
    **options: Unpack[StageOptions],
) -> tuple[Check, ...]:
    """Check a folder: its files, and everything in it that can be computed again. The rest is listed as a claim.

    After a failed group of checks the rest is skipped. Hashes and sizes that anyone can compute again prove that a
    folder is whole and consistent, not who made it.

    Args:
        folder: A converted folder.
        data: Images to measure agreement and KL again, which report.json claims. Needs the original's weights.
        limit: Use only so many images, drawn by `seed`.
        seed: Seed of that draw.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: class_map, device, task and outputs, as for `convert`; model and trust_code, as for `finetune`.

    Returns:
        The checks. One that is not possible has `ok` and not `checked`, and says why.

    Raises:
        FolderError: KD602 if kdna did not write the folder, KD611 if checking it needs `trust_code`.
        DataError: KD401 without images.
    """
    check_keywords("verify", options, StageOptions)
    progress = as_progress(progress)
    model, trust_code = options.get("model"), options.get("trust_code", False)
    checks = list(verify_folder(folder, model=model, trust_code=trust_code))
    if not all(check.ok for check in checks):
        return tuple(checks)
    conversion = open_folder(folder, model=copy.deepcopy(model), trust_code=trust_code)
    checks += _recomputed(conversion, options)
    claimed = conversion.report.divergence
    if data is None:
        checks.append(unchecked("figures", f"{_figures(claimed)}; pass --data to measure again"))
    else:
        measured = evaluate(folder, data=data, limit=limit, seed=seed, progress=as_progress(progress), **options)
        checks.append(_measured(claimed, measured))
    checks.append(
        unchecked("history", "predicted errors, seed, times and notes; that the weights are this recipe's result")
    )
    return tuple(checks)


def _recomputed(conversion: Conversion, options: StageOptions) -> Iterator[Check]:
    """What the plan says of layers and sizes, computed again from the architecture.

    How often a layer runs on regions that a detector proposes depends on its weights, so this is not compared.
    """
    plain = _plain(conversion.model)
    example = own_example(plain, conversion.data)
    if is_packed(conversion.data) and not _runs(plain, example):
        yield unchecked("sizes", "the net does not run on a single input")
        return
    apart = conversion_task(conversion, options, measured=False).apart(plain)
    claims: dict[str, Callable[[], str]] = {
        "layers": partial(_layers, conversion.plan, plain, example, apart),
        "original size": partial(_original_size, conversion, plain, example, apart),
        "stored": partial(_stored_sizes, conversion),
        "MACs": partial(_planned_macs, conversion),
    }
    for name, claim in claims.items():
        yield (check := checked(name, claim))
        if not check.ok:
            return


def _runs(net: nn.Module, example: Tensor) -> bool:
    try:
        survey(net, example)
    except ModelError:
        return False
    return True


def _plain(model: nn.Module) -> nn.Module:
    """A copy in the original's architecture, without routers."""
    plain = fold_weights(copy.deepcopy(model))
    for name in routers(plain):
        detach(plain.get_submodule(name))
    return plain


def _layers(plan: Plan, plain: nn.Module, example: Tensor, apart: Sequence[str]) -> str:
    surveyed = survey(plain, example)
    odd = {layer.name for layer in plan.layers} ^ {layer.name for layer in surveyed}
    if odd:
        raise broken(f"plan.json and the net have different layers: {', '.join(sorted(odd)[:8])}")
    own = {layer.name: layer for layer in surveyed}
    for layer in plan.layers:
        left_out = {"reason"} | (_POSITIONS if is_inside(layer.name, apart) else set())
        for field in (field.name for field in fields(Layer) if field.name not in left_out):
            planned, actual = getattr(layer, field), getattr(own[layer.name], field)
            if field == "standardized" and planned and actual:  # the bound follows from gains, which have changed
                planned, actual = planned[0], actual[0]
            if planned != actual and planned is not None:  # an earlier version did not know how a layer standardizes
                raise broken(f"plan.json says that {layer.name} has {field} {planned}, the net has {actual}")
    return f"{len(plan.layers)} layers, shapes and positions as in plan.json"


def _original_size(conversion: Conversion, plain: nn.Module, example: Tensor, apart: Sequence[str]) -> str:
    """The folded net has the original's parameters and MACs, and its bytes where its numbers have the same width."""
    claimed, own = conversion.plan.original, totals(plain, example)
    other = any(IN_FLOAT32 in note for note in conversion.report.notes)
    wide = not other and all(tensor.element_size() == 4 for tensor in plain.parameters())
    size = f"{own.params:,} parameters, {own.bytes:,} bytes and {own.macs:,} MACs"
    same_macs = own.macs == claimed.macs or bool(apart)
    if own.params != claimed.params or not same_macs or (wide and own.bytes != claimed.bytes):
        planned = f"{claimed.params:,}, {claimed.bytes:,} and {claimed.macs:,}"
        raise broken(f"the original's architecture has {size}, plan.json says {planned}")
    return f"its architecture has {size}"


def _stored_sizes(conversion: Conversion) -> str:
    """The parameters of each family, and of the routers."""
    plan = conversion.plan
    shapes = {layer.name: layer.shape for layer in plan.layers}
    for family in plan.families:
        specs = family_specs(family, [shapes[name] for name in family.members])
        count = sum(product(spec.shape) for spec in specs)
        planned = plan.stored.get(family.members[0], count)
        if planned != count:
            raise broken(f"the family of {family.members[0]} has {count:,} parameters, plan.json says {planned:,}")
    routed = sum(each.numel() for router in routers(conversion.model).values() for each in router.parameters())
    if routed != plan.routed:
        raise broken(f"the routers have {routed:,} parameters, plan.json says {plan.routed:,}")
    return "families and routers have the parameters that plan.json says"


def _planned_macs(conversion: Conversion) -> str:
    """The MACs of the original, with converted layers run factored where that is cheaper, and of the routers."""
    plan, net = conversion.plan, conversion.model
    layers = {layer.name: layer for layer in plan.layers}
    macs = plan.original.macs + sum(routing_of(route).macs(route.layers) for route in plan.routes)
    routed = routers(net)
    for family in plan.families:
        scheme = scheme_of(family)
        for layer in (layers[name] for name in family.members if name not in routed):
            if is_chainable(net.get_submodule(layer.name)):
                macs += min(0, scheme.macs(layer.shape, layer.in_positions, layer.out_positions) - layer.macs)
    if macs != plan.planned.macs:
        raise broken(f"run factored the net takes {macs:,} MACs, plan.json says {plan.planned.macs:,}")
    return f"{macs:,} run factored, as planned"


def _figures(claimed: Divergence | None) -> str:
    if claimed is None:
        return "report.json claims no divergence"
    return f"report.json claims {_text(claimed)}"


def _text(measured: Divergence) -> str:
    """The figures in words. A task without answers has an error only."""
    if measured.agreement is None or measured.kl is None:
        return f"error {measured.logit_error:.2g} on {measured.images} images"
    return f"{100 * measured.agreement:.1f} % agreement and KL {measured.kl:.2g} on {measured.images} images"


def _measured(claimed: Divergence | None, measured: Evaluation) -> Check:
    """The claimed figures beside those on the given images."""
    if measured.logit_error is None:
        return unchecked("figures", f"{_figures(claimed)}; the original's weights are not here to measure again")
    again = Divergence(measured.agreement, measured.kl, measured.logit_error, measured.images)
    as_good = claimed is None or (_is_possible(claimed) and _agrees(claimed, again) and _is_near(claimed, again))
    return Check("figures", as_good, f"{_figures(claimed)}; measured {_text(again)}")


def _is_possible(claimed: Divergence) -> bool:
    share = 0.0 if claimed.agreement is None else claimed.agreement
    return claimed.images > 0 and 0 <= share <= 1 and claimed.distance >= 0


def _agrees(claimed: Divergence, again: Divergence) -> bool:
    if claimed.agreement is None or again.agreement is None:
        return claimed.agreement is again.agreement
    images = claimed.images + again.images
    share = (claimed.agreement * claimed.images + again.agreement * again.images) / images
    deviation = math.sqrt(share * (1 - share) * (1 / claimed.images + 1 / again.images))
    return again.agreement >= claimed.agreement - DEVIATIONS * deviation - 1 / again.images


def _is_near(claimed: Divergence, again: Divergence) -> bool:
    return again.distance <= KL_FACTOR * claimed.distance + KL_SLACK
