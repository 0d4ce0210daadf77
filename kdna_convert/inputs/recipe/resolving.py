"""A recipe meets a model: which rule has each layer, and why a layer has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ...core.errors import RecipeError
from ...core.specs import Layer, Options
from . import patterns, yamlfile
from .patterns import Precision
from .schema import DENSE, Alternative, Recipe, Routing, Rule

# A net without Linear layers may end in a convolution; one of these in its name says that it is the classifier.
_HEADS = {"classifier", "fc", "head", "last_linear", "linear", "logits"}


@dataclass(frozen=True)
class Assignment:
    """What the recipe wants of one layer: a scheme, or a `reason` (KD1xx) why it stays as it is; and a routing, which a
    layer that the recipe keeps dense (KD115) may have too.

    Layers of one `family` form one family, whatever they look like; None leaves it to the recipe's `families`.
    `rule` is the rule's position, None where the recipe's own scheme applies: `options_path` leads to the options.
    """

    layer: str
    scheme: str | None = None
    options: Options = field(default_factory=dict)
    routing: str | None = None
    routing_options: Options = field(default_factory=dict)
    family: str | None = None
    rule: int | None = None
    reason: str | None = None

    @property
    def options_path(self) -> tuple[str | int, ...]:
        """Recipe.where(*options_path, "rank") begins a message about this layer's rank."""
        return ("options",) if self.rule is None else ("rules", self.rule, "options")


def resolve(recipe: Recipe, layers: Sequence[Layer]) -> tuple[Assignment, ...]:
    """One assignment a layer, in the layers' order.

    Raises RecipeError: KD204 a pattern that matches no layer or a rule that is left with none, KD205 two rules of
    equal precedence on one layer.
    """
    _check_patterns(recipe, layers)
    by_default = _left_out_by_default(layers)
    assignments = tuple(_assign(recipe, layer, _claim(recipe, layer), by_default.get(layer.name)) for layer in layers)
    _check_rules(recipe, assignments)
    return assignments


def alternatives(recipe: Recipe, assignments: Sequence[Assignment]) -> list[tuple[Assignment, ...]]:
    """What each of the recipe's alternatives would have of the layers that no rule claims; KD102 on all others."""

    def instead(assignment: Assignment, other: Alternative) -> Assignment:
        if assignment.reason is not None or assignment.rule is not None:
            return replace(assignment, reason=assignment.reason or "KD102")
        return replace(assignment, scheme=other.scheme, options=other.options)

    return [tuple(instead(assignment, other) for assignment in assignments) for other in recipe.alternatives]


def _check_patterns(recipe: Recipe, layers: Sequence[Layer]) -> None:
    for path, pattern in _written(recipe):
        if not any(patterns.matches(pattern, layer) for layer in layers):
            meant = patterns.suggestion(pattern, layers)
            raise RecipeError("KD204", f"{recipe.where(*path)}: {pattern!r} matches no layer of this model{meant}")


def _written(recipe: Recipe) -> Iterator[tuple[yamlfile.Path, str]]:
    """Every pattern of the recipe and the path that leads to it."""
    lists: list[tuple[yamlfile.Path, tuple[str, ...]]] = [
        (("include",), recipe.include),
        (("exclude",), recipe.exclude),
        *((("rules", index, "layers"), rule.layers) for index, rule in enumerate(recipe.rules)),
    ]
    for path, listed in lists:
        yield from (((*path, position), pattern) for position, pattern in enumerate(listed))


def _left_out_by_default(layers: Sequence[Layer]) -> dict[str, Precision]:
    """The layers left out by default, with the least precise kind of pattern that brings each of them back."""
    reached = [layer for layer in layers if layer.reason != "KD107"]
    linears = [layer for layer in reached if _is_linear(layer)]
    out = {layer.name: Precision.TYPE for layer in layers if _is_linear(layer)}
    out |= {layer.name: Precision.REGEX for layer in layers if layer.reason == "KD103"}
    last = linears[-1:] or [layer for layer in reached[-1:] if _HEADS & set(layer.name.split("."))]
    first = [layer for layer in reached if not _is_linear(layer)][:1]
    return out | {layer.name: Precision.EXACT for layer in [*first, *last]}


def _is_linear(layer: Layer) -> bool:
    return len(layer.shape) == 2


def _claim(recipe: Recipe, layer: Layer) -> int | None:
    """The position of the rule that names the layer most precisely."""
    found = [(patterns.best(rule.layers, layer), index) for index, rule in enumerate(recipe.rules)]
    found = sorted(pair for pair in found if pair[0] is not Precision.NONE)
    if len(found) > 1 and found[0][0] is found[1][0]:
        one, other = (recipe.where("rules", index, "layers") for _, index in found[:2])
        both = f"{one} and {other} both claim {layer.name}, with equal precedence ({found[0][0].name.lower()})"
        raise RecipeError("KD205", f"{both}; make one of them more precise")
    return found[0][1] if found else None


def _assign(recipe: Recipe, layer: Layer, claim: int | None, needed: Precision | None) -> Assignment:
    rule = None if claim is None else recipe.rules[claim]
    reason = _reason(recipe, layer, rule, needed)
    if reason is not None:
        return Assignment(layer.name, rule=claim, reason=reason)
    if rule is None:
        return _assignment(layer, recipe.scheme, recipe.options, recipe.routing)
    own = None not in (rule.scheme, recipe.scheme) and rule.scheme != recipe.scheme
    options = rule.options if own else {**recipe.options, **rule.options}
    family = f"rules.{claim}" if rule.family == "together" else None
    return _assignment(layer, rule.scheme or recipe.scheme, options, rule.routing or recipe.routing, family, claim)


def _reason(recipe: Recipe, layer: Layer, rule: Rule | None, needed: Precision | None) -> str | None:
    """Why the layer is left as it is; `needed` is how precise a pattern brings it back, if it is out by default."""
    if layer.reason not in (None, "KD103"):
        return layer.reason
    if patterns.best(recipe.exclude, layer) is not Precision.NONE:
        return "KD101"
    named = rule is not None and patterns.best(rule.layers, layer) is Precision.EXACT
    if needed is not None and not named and patterns.best(recipe.include, layer) > needed:
        return layer.reason or "KD101"
    return "KD102" if rule is None and recipe.scheme is None else None


def _assignment(
    layer: Layer,
    scheme: str | None,
    options: Options,
    routing: Routing,
    family: str | None = None,
    rule: int | None = None,
) -> Assignment:
    name = None if routing.name == "none" else routing.name
    if scheme == DENSE:
        return Assignment(layer.name, None, {}, name, routing.options, None, rule, "KD115")
    return Assignment(layer.name, scheme, dict(options), name, routing.options, family, rule)


def _check_rules(recipe: Recipe, assignments: Sequence[Assignment]) -> None:
    """A rule that is left with no layer does nothing, and its writer must hear of it."""
    for index in range(len(recipe.rules)):
        mine = [assignment.reason for assignment in assignments if assignment.rule == index]
        if {None, "KD115"} & set(mine):
            continue
        why = "more precise rules claim all of its layers"
        if mine:
            codes = sorted({reason for reason in mine if reason})
            back = "; name them under `include`" if set(codes) <= {"KD101", "KD103"} else "; see `kdna explain`"
            why = f"all {len(mine)} of its layers stay as they are ({', '.join(codes)}){back}"
        raise RecipeError("KD204", f"{recipe.where('rules', index, 'layers')}: this rule does nothing: {why}")
