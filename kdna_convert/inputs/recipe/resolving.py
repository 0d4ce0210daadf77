"""Apply a recipe to a model: the scheme of each layer, or the reason why it keeps its weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ...core.errors import RecipeError
from ...core.specs import Layer, Options, product
from . import patterns, yamlfile
from .patterns import Precision
from .schema import DENSE, Alternative, Recipe, RoutingChoice, Rule

# In a net without Linear layers, the last convolution is the classifier if its name contains one of these.
_HEADS = {"classifier", "fc", "head", "last_linear", "linear", "logits"}


@dataclass(frozen=True)
class Assignment:
    """What the recipe says about one layer.

    Attributes:
        layer: Its name.
        scheme: The scheme, None for a layer that keeps its weight.
        options: The fields of the scheme.
        routing: The routing, None without one. A layer that the recipe keeps dense (KD115) may have one too.
        routing_options: The fields of the routing.
        family: Layers with the same name here form one family. None leaves that to the recipe's `families`.
        rule: The position of its rule, None where the recipe's own scheme applies.
        reason: The code (KD1xx) of why the layer keeps its weight.
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
        """The path of the options in the recipe: Recipe.where(*options_path, "rank") is the place of the rank."""
        return ("options",) if self.rule is None else ("rules", self.rule, "options")


def resolve(recipe: Recipe, layers: Sequence[Layer]) -> tuple[Assignment, ...]:
    """One assignment for each layer, in their order.

    Raises:
        RecipeError: KD204 (a pattern matches no layer, or a rule applies to none), KD205 (two rules match a layer with
            equal precedence).
    """
    _check_patterns(recipe, layers)
    by_default = _excluded_by_default(layers)
    assignments = tuple(_assign(recipe, layer, _claim(recipe, layer), by_default.get(layer.name)) for layer in layers)
    _check_rules(recipe, assignments)
    return assignments


def inclusion(layers: Sequence[Layer]) -> str:
    """What a recipe can include to convert more of these layers, as the end of a message; empty if nothing."""
    left_out = [layer for layer in layers if layer.reason in ("KD101", "KD103")]
    kinds = Counter(layer.kind for layer in left_out if _is_linear(layer))
    if kinds and kinds.most_common(1)[0][1] > 1:
        kind, count = kinds.most_common(1)[0]
        return f"; include its {count} {kind} layers: --set include=type:{kind}"
    if not left_out:
        return ""
    largest = max(left_out, key=lambda layer: product(layer.shape))
    return f"; include more layers: --set include={largest.name}"


def alternatives(recipe: Recipe, assignments: Sequence[Assignment]) -> list[tuple[Assignment, ...]]:
    """The assignments with each alternative as the scheme of the layers that no rule matches; KD102 for all others."""

    def instead(assignment: Assignment, other: Alternative) -> Assignment:
        if assignment.reason is not None or assignment.rule is not None:
            return replace(assignment, reason=assignment.reason or "KD102")
        return replace(assignment, scheme=other.scheme, options=other.options)

    return [tuple(instead(assignment, other) for assignment in assignments) for other in recipe.alternatives]


def _check_patterns(recipe: Recipe, layers: Sequence[Layer]) -> None:
    for path, pattern in _all_patterns(recipe):
        if not any(patterns.matches(pattern, layer) for layer in layers):
            suggestion = patterns.suggestion(pattern, layers)
            raise RecipeError("KD204", f"{recipe.where(*path)}: {pattern!r} matches no layer of this model{suggestion}")


def _all_patterns(recipe: Recipe) -> Iterator[tuple[yamlfile.Path, str]]:
    """Every pattern of the recipe, with its path."""
    lists: list[tuple[yamlfile.Path, tuple[str, ...]]] = [
        (("include",), recipe.include),
        (("exclude",), recipe.exclude),
        *((("rules", index, "layers"), rule.layers) for index, rule in enumerate(recipe.rules)),
    ]
    for path, listed in lists:
        yield from (((*path, position), pattern) for position, pattern in enumerate(listed))


def _excluded_by_default(layers: Sequence[Layer]) -> dict[str, Precision]:
    """The layers excluded by default, each with the least specific kind of pattern that includes it."""
    run = [layer for layer in layers if layer.reason != "KD107"]
    linears = [layer for layer in run if _is_linear(layer)]
    excluded = {layer.name: Precision.TYPE for layer in layers if _is_linear(layer)}
    excluded |= {layer.name: Precision.REGEX for layer in layers if layer.reason == "KD103"}
    last = linears[-1:] or [layer for layer in run[-1:] if _HEADS & set(layer.name.split("."))]
    first = [layer for layer in run if not _is_linear(layer)][:1]
    return excluded | {layer.name: Precision.EXACT for layer in [*first, *last]}


def _is_linear(layer: Layer) -> bool:
    return len(layer.shape) == 2


def _claim(recipe: Recipe, layer: Layer) -> int | None:
    """The position of the rule that matches the layer most specifically."""
    pairs = [(patterns.best(rule.layers, layer), index) for index, rule in enumerate(recipe.rules)]
    pairs = sorted(pair for pair in pairs if pair[0] is not Precision.NONE)
    if len(pairs) > 1 and pairs[0][0] is pairs[1][0]:
        one, other = (recipe.where("rules", index, "layers") for _, index in pairs[:2])
        both = f"{one} and {other} both match {layer.name}, with equal precedence ({pairs[0][0].name.lower()})"
        raise RecipeError("KD205", f"{both}; make one of them more specific")
    return pairs[0][1] if pairs else None


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
    """Why the layer keeps its weight. `needed`: the kind of pattern that includes it, if it is excluded by default."""
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
    routing: RoutingChoice,
    family: str | None = None,
    rule: int | None = None,
) -> Assignment:
    name = None if routing.name == "none" else routing.name
    if scheme == DENSE:
        return Assignment(layer.name, None, {}, name, routing.options, None, rule, "KD115")
    return Assignment(layer.name, scheme, dict(options), name, routing.options, family, rule)


def _check_rules(recipe: Recipe, assignments: Sequence[Assignment]) -> None:
    """Raise RecipeError KD204 for a rule that applies to no layer."""
    for index in range(len(recipe.rules)):
        reasons = [assignment.reason for assignment in assignments if assignment.rule == index]
        if {None, "KD115"} & set(reasons):
            continue
        why = "more specific rules match all of its layers"
        if reasons:
            codes = sorted({reason for reason in reasons if reason})
            way_out = "; add them to `include`" if set(codes) <= {"KD101", "KD103"} else "; see `kdna explain`"
            why = f"all {len(reasons)} of its layers keep their weights ({', '.join(codes)}){way_out}"
        raise RecipeError("KD204", f"{recipe.where('rules', index, 'layers')}: this rule does nothing: {why}")
