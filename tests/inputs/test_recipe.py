"""Recipes: errors name the line, and every layer resolves to one assignment."""

import math
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from kdna_convert.core.errors import PlanError, RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.inputs.recipe import (
    Assignment,
    Recipe,
    bundled,
    check_options,
    json_schema,
    load_recipe,
    parse_recipe,
    parse_size,
    resolve,
)
from kdna_convert.inputs.recipe.patterns import Precision, best, precision
from kdna_convert.inputs.recipe.schema import Finetune
from kdna_convert.inputs.recipe.sizes import parse_count, parse_share, parse_target
from kdna_convert.routing import ROUTINGS
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.plan.routes import form_routes, gate_specs
from kdna_convert.stages.repair import STEPS

NET = (
    Layer("conv1", "Conv2d", (16, 3, 3, 3)),
    Layer("layer1.0.conv1", "Conv2d", (16, 16, 3, 3)),
    Layer("layer1.0.conv2", "Conv2d", (16, 16, 3, 3)),
    Layer("layer1.0.dw", "Conv2d", (16, 1, 3, 3), groups=16, reason="KD103"),
    Layer("layer2.0.conv1", "Conv2dSame", (32, 16, 3, 3)),
    Layer("layer2.0.up", "ConvTranspose2d", (32, 32, 2, 2), reason="KD104"),
    Layer("layer2.0.mlp", "Linear", (32, 32)),
    Layer("fc", "Linear", (10, 32)),
)


def outcome(text: str, layers: tuple[Layer, ...] = NET) -> dict[str, str | None]:
    """What each layer gets: its scheme, or the code that says why not."""
    return {a.layer: a.scheme or a.reason for a in resolve(parse_recipe(text), layers)}


def refused(text: str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        resolve(parse_recipe(text, overrides, name="mine.yaml"), NET)
    return caught.value


# ---- what is read


def test_the_fine_tune_of_a_recipe_has_the_settings_of_the_command_and_their_defaults() -> None:
    from kdna_convert.stages.finetune import Settings

    assert {*Finetune.model_fields} - {"time"} == {field.name for field in fields(Settings)} - {"seconds", "seed"}
    assert Finetune().settings(7) == Settings(seed=7)
    finetune = parse_recipe("scheme: cp\nfinetune: {time: 1.5h, clip: 1, lr: 1e-2}\n").finetune
    assert finetune is not None
    assert finetune.settings(0) == Settings(seconds=5400, clip=1.0, lr=0.01)


def test_a_recipe_made_in_python_keeps_its_fine_tune() -> None:
    recipe = Recipe(scheme="cp", finetune=Finetune(time="10m", train="shared"))
    assert parse_recipe(recipe.text).finetune == recipe.finetune


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("finetune: {ema: 1}", "finetune.ema"),
        ("finetune: {orthogonality: 0.1}", "use --train shared (train: shared)"),
        ("finetune: {sampled: true}", "needs `nested: true`"),
        ("codec: int8\nfinetune: {train: codes}", "needs `codec: entropy`"),
        ("finetune: {time: 10}", "finetune.time: must be a time such as 90s, 10m or 1.5h"),
        ("finetune: {time: 10 minutes}", "finetune.time: '10 minutes' is not a time"),
        ("finetune: {time: 1m, steps: 3}", "finetune: more than one length: give one of time, epochs and steps"),
        ("finetune: {batch_size: 5, accumulate: 2}", "batch_size: 5 images cannot be split into 2 equal"),
        ("finetune: {lr: 0}", "finetune.lr: must be greater than 0, got 0"),
        ("finetune: {rate: 1}", "finetune.rate: unknown key"),
        ("codec: entropy\nsharing: {below: 0.1}", "sharing.params: field required"),
        ("sharing: {below: 0.1, params: 0.3}", "`sharing` needs `codec`"),
    ],
)
def test_a_wrong_fine_tune_or_sharing_is_refused_with_its_line(wrong: str, message: str) -> None:
    assert message in refused(f"scheme: cp\n{wrong}\n").message
    assert "mine.yaml line" in refused(f"scheme: cp\n{wrong}\n").message


def test_the_shortest_recipe_is_one_line() -> None:
    recipe = parse_recipe("scheme: basis")
    assert (recipe.scheme, recipe.budget, recipe.seed, recipe.calibration.images) == ("basis", None, 0, 1000)


def test_every_key_of_the_documentation_is_read() -> None:
    import kdna_convert.inputs.recipe as package

    assert package.__doc__
    shown = package.__doc__.split("where they have one:\n")[1].split("\npatterns.py")[0]
    lines = [line.removeprefix("    ") for line in shown.splitlines() if "count: 4" not in line]
    by_cluster = "\n".join(lines).replace("by: gain ", "by: cluster ")
    recipe = parse_recipe(by_cluster)
    assert recipe.model_fields_set == set(Recipe.model_fields)
    assert recipe.rules[0].model_fields_set == set(type(recipe.rules[0]).model_fields)


def test_a_size_is_read_in_every_notation() -> None:
    written = {
        1200: 1200,
        "1200": 1200,
        "1.2MB": 1_200_000,
        "570 kB": 570_000,
        "4GiB": 2**32,
        "2mib": 2**21,
        ".5k": 500,
    }
    assert {size: parse_size(size) for size in written} == written


@pytest.mark.parametrize("size", ["", "MB", "1.2XB", "-3kB", 0, "1e6", True, "0.1B"])
def test_an_invalid_size_is_refused(size: Any) -> None:
    with pytest.raises(PlanError, match="KD506"):
        parse_size(size)


def test_shares_read_as_people_write_them() -> None:
    assert [parse_share(share) for share in (0.05, 1, 1.0, "1/20", "5%", "5 %", " .5 ", 1e-5)] == [
        *(0.05, 1, 1, 0.05, 0.05, 0.05, 0.5, 1e-5)
    ]
    assert [parse_count(target, 1000) for target in (0.5, "50%", "1/4", 1, 1.0, 250)] == [
        500,
        500,
        250,
        1000,
        1000,
        250,
    ]
    assert [parse_target(target, 10_000) for target in ("5%", "1/20", 0.05, 500, "0.5kB")] == [500] * 5


@pytest.mark.parametrize("share", ["", "half", "150%", "1/0", 0, -0.5, 1.5, "2", True, math.nan])
def test_anything_else_is_no_share(share: Any) -> None:
    with pytest.raises(PlanError, match=r"KD506: .* is not a share; write it like 1/20, 5% or 0.05"):
        parse_share(share)


@pytest.mark.parametrize("written", ["0.25", "25%", "1/4"])
def test_a_budget_is_a_share_as_people_write_it(written: str) -> None:
    for kind in ("params", "macs"):
        budget = parse_recipe(f"scheme: cp\nbudget: {{{kind}: {written}}}\n").budget
        assert budget is not None
        assert getattr(budget, kind) == 0.25
    whole = 10_000
    budget = parse_recipe(f"scheme: cp\nbudget: {{bytes: {written}}}\n").budget
    assert budget is not None
    assert budget.bytes is not None
    assert parse_target(budget.bytes, whole) == whole // 4


@pytest.mark.parametrize("kind", ["params", "macs", "bytes"])
def test_a_budget_that_is_no_share_is_refused_with_its_place(kind: str) -> None:
    assert f"mine.yaml line 2: budget.{kind}: " in refused(f"scheme: cp\nbudget: {{{kind}: 3/2}}\n").message


@pytest.mark.parametrize("text", ["none", "~", "null", ""])
def test_no_routing_may_be_written_in_four_ways(text: str) -> None:
    assert resolve(parse_recipe(f"scheme: cp\nrouting: {text}"), NET)[1].routing is None


def test_a_routing_is_a_name_or_a_name_with_options() -> None:
    assert parse_recipe("scheme: cp\nrouting: se").routing.options == {}
    recipe = parse_recipe("scheme: cp\nrouting: {name: se, width: 16}")
    assert (recipe.routing.name, recipe.routing.options) == ("se", {"width": 16})


def test_a_recipe_keeps_its_text_as_given() -> None:
    text = "# why\nscheme: cp # and how\n"
    assert parse_recipe(text).text == text


def test_a_recipe_made_in_python_has_a_text_that_reads_back() -> None:
    recipe = Recipe.model_validate({"scheme": "cp", "routing": {"name": "se", "width": 8}, "budget": {"bytes": "1MB"}})
    assert parse_recipe(recipe.text).model_dump() == recipe.model_dump()


def test_exponents_are_numbers() -> None:
    assert parse_recipe("scheme: cp\noptions: {damping: 1e-4}").options == {"damping": 1e-4}


# ---- overrides


def test_an_override_goes_over_the_file_and_into_the_text() -> None:
    recipe = parse_recipe("scheme: cp\nbudget: {params: 0.5}", ["budget.params=0.25", "calibration.images=64"])
    assert recipe.budget is not None
    assert (recipe.budget.params, recipe.calibration.images) == (0.25, 64)
    assert recipe.text.startswith("# recipe with --set budget.params=0.25\n")
    assert parse_recipe(recipe.text).model_dump() == recipe.model_dump()


def test_an_override_reaches_into_a_list() -> None:
    recipe = parse_recipe("rules: [{layers: fc, scheme: cp}]", ["rules.0.scheme=basis", "rules.0.layers=[conv1, fc]"])
    assert (recipe.rules[0].scheme, recipe.rules[0].layers) == ("basis", ("conv1", "fc"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rank", "--set rank: write it as key=value"),
        ("scheme.x=1", "scheme is 'cp', without keys"),
        ("rules.3.scheme=cp", "rules has 1 entries, counted from 0"),
        ("budget.params=[", "--set budget.params=\\[: "),
        ("budget.params=2", "--set budget.params=2: budget.params: must be less than or equal to 1, got 2"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"KD203: .*{message}"):
        parse_recipe("scheme: cp\nrules: [{layers: fc}]", [override])


# ---- what is refused, and where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schme: cp", "KD202: mine.yaml line 1: schme: unknown key; did you mean 'scheme'?"),
        (
            "scheme: cp\nrules:\n- layers: fc\n  optons: {}",
            "KD202: mine.yaml line 4: rules.0.optons: unknown key; did you mean 'options'?",
        ),
        (
            "scheme: cp\nbudget:\n  fps: 1",
            "KD202: mine.yaml line 3: budget.fps: unknown key; its keys are params, bytes",
        ),
        (
            "scheme: basics",
            "KD203: mine.yaml line 1: scheme: must be 'cp', 'separable', 'basis', 'tucker', 'output', "
            "'atoms', 'warehouse', 'codebook', 'lowrank', 'kerneldna' or 'dense', got",
        ),
        ("scheme: basics", "did you mean 'basis'?"),
        ("scheme: cp\nseed: -1", "KD203: mine.yaml line 2: seed: must be greater than or equal to 0, got -1"),
        ("scheme: cp\nseed: yes", "line 2: seed: must be a valid integer, got True"),
        ("scheme: cp\nbudget: 0.5", "line 2: budget: must be a mapping, like {key: value}, got 0.5"),
        ("scheme: cp\nrules: fc", "line 2: rules: must be a list, got 'fc'"),
        ("scheme: cp\nbudget: {params: 1.5}", "budget.params: must be less than or equal to 1, got 1.5"),
        ("scheme: cp\nbudget: {}", "budget: set exactly one of params, bytes and macs"),
        ("scheme: cp\nbudget: {bytes: big}", "line 2: budget.bytes: 'big' is not a size"),
        ("scheme: cp\nexclude: 're:('", "line 2: exclude: 're:(' is not a regular expression"),
        ("scheme: cp\nexclude: [1]", "line 2: exclude: must be a layer pattern or a list of them"),
        ("scheme: cp\nfamilies: {metric: cka}", "families: metric, linkage, threshold and count need `by: cluster`"),
        ("scheme: cp\nrouting: sse", "got 'sse'; did you mean 'se'?"),
        ("seed: 1", "a recipe needs `scheme`, `rules` or both"),
        ("rules: [{layers: fc}]", "rules.0 needs `scheme`"),
        ("scheme: cp\nscheme: basis", "KD201: mine.yaml line 2: the key 'scheme' is given twice, first on line 1"),
        ("scheme: [", "KD201: mine.yaml line 1: "),
        ("scheme: cp\noptions: {3: 4}", "KD201: mine.yaml line 2: a key must be a string, got 3"),
        ("scheme: cp\nseed: 2024-13-45", "KD201: mine.yaml line 2: month must be in 1..12"),
        ("scheme: cp\n\x1f", "KD201: mine.yaml line 2: special characters are not allowed"),
        ("a: &a [1]\nb: *a", "KD201: mine.yaml line 2: aliases"),
        ("scheme: !!python/object:os.system x", "KD201: mine.yaml line 1: could not determine a constructor"),
        ("", "KD201: mine.yaml is not a recipe"),
        ("[" * 5000, "KD201: mine.yaml line 1: nested too deeply"),
    ],
)
def test_a_mistake_is_refused_with_its_line_and_a_way_out(text: str, message: str) -> None:
    assert message in str(refused(text))


def test_several_mistakes_are_counted() -> None:
    assert str(refused("scheme: cp\nseed: -1\ncalibration: {batch: 0}")).endswith("(and 1 more)")


@given(st.text(max_size=60))
def test_any_invalid_text_is_a_recipe_error(text: str) -> None:
    with suppress(RecipeError):
        assert isinstance(parse_recipe(text), Recipe)


def test_a_missing_file_and_an_unknown_bundled_name_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"KD201: there is no recipe file .*there\.yaml"):
        load_recipe(str(tmp_path / "there.yaml"))
    with pytest.raises(RecipeError, match="KD206: no bundled recipe 'share-cp'; did you mean 'shared-cp'"):
        load_recipe("share-cp")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="KD201"):
        load_recipe(str(tmp_path / "bad.yaml"))


# ---- which layer gets what


def test_stem_classifier_depthwise_and_linear_layers_are_excluded_with_a_reason() -> None:
    assert outcome("scheme: cp") == {
        "conv1": "KD101",
        "layer1.0.conv1": "cp",
        "layer1.0.conv2": "cp",
        "layer1.0.dw": "KD103",
        "layer2.0.conv1": "cp",
        "layer2.0.up": "KD104",
        "layer2.0.mlp": "KD101",
        "fc": "KD101",
    }


def test_a_net_without_linear_layers_may_end_in_a_convolution() -> None:
    squeeze = (Layer("features.0", "Conv2d", (8, 3, 3, 3)), Layer("features.3", "Conv2d", (8, 8, 1, 1)))
    head = Layer("classifier.1", "Conv2d", (10, 8, 1, 1))
    assert outcome("scheme: cp", (*squeeze, head)) == {
        "features.0": "KD101",
        "features.3": "cp",
        "classifier.1": "KD101",
    }
    assert outcome("scheme: cp", (*squeeze, Layer("last", "Conv2d", (8, 8, 1, 1))))["last"] == "cp"


@pytest.mark.parametrize(
    ("pattern", "brought_back"),
    [
        ("conv1", {"conv1"}),
        ("fc", {"fc"}),
        ("*", {"layer1.0.dw", "layer2.0.mlp"}),
        ("re:.*", {"layer1.0.dw", "layer2.0.mlp"}),
        ("type:*", {"layer2.0.mlp"}),
    ],
)
def test_a_more_precise_pattern_overrides_more_reasons(pattern: str, brought_back: set[str]) -> None:
    plain, included = outcome("scheme: cp"), outcome(f"scheme: cp\ninclude: '{pattern}'")
    assert {name for name in plain if plain[name] != included[name]} == brought_back


def test_a_rule_includes_only_layers_that_it_names_exactly() -> None:
    got = outcome("rules:\n- {layers: [conv1, layer1.0.dw, 'layer2*'], scheme: basis}")
    assert [got[name] for name in ("conv1", "layer1.0.dw", "layer2.0.conv1", "layer2.0.mlp")] == [
        "basis",
        "basis",
        "basis",
        "KD101",
    ]
    assert got["layer1.0.conv1"] == "KD102"


def test_exclude_wins_over_everything() -> None:
    got = outcome("scheme: cp\ninclude: conv1\nexclude: ['*conv1']\nrules: [{layers: ['layer*conv?'], scheme: basis}]")
    assert [got[name] for name in ("conv1", "layer1.0.conv1", "layer1.0.conv2")] == ["KD101", "KD101", "basis"]


def test_a_structural_reason_outlasts_every_include() -> None:
    assert outcome("scheme: cp\ninclude: layer2.0.up")["layer2.0.up"] == "KD104"


def test_the_most_precise_rule_decides_whatever_the_order() -> None:
    rules = [
        "{layers: 'type:Conv2d', scheme: lowrank}",
        "{layers: 're:layer1.*', scheme: basis}",
        "{layers: 'layer1.0.c*', scheme: kerneldna}",
        "{layers: layer1.0.conv1, scheme: cp}",
    ]
    for order in (rules, rules[::-1]):
        got = outcome("include: [conv1, '*dw']\nrules: [" + ", ".join(order) + "]", NET)
        assert [got[f"layer1.0.{name}"] for name in ("conv1", "conv2", "dw")] == ["cp", "kerneldna", "basis"]


def test_a_rule_inherits_what_it_does_not_set() -> None:
    recipe = parse_recipe(
        "scheme: cp\noptions: {rank: 4, sweeps: 2}\nrouting: se\n"
        "rules: [{layers: '*1.0.conv1', options: {rank: 8}}, {layers: '*conv2', scheme: basis, routing: none}]"
    )
    by_layer = {a.layer: a for a in resolve(recipe, NET)}
    assert by_layer["layer1.0.conv1"] == Assignment("layer1.0.conv1", "cp", {"rank": 8, "sweeps": 2}, "se", {}, None, 0)
    assert by_layer["layer1.0.conv2"] == Assignment("layer1.0.conv2", "basis", {}, None, {}, None, 1)
    assert by_layer["layer1.0.conv1"].options_path == ("rules", 0, "options")
    assert by_layer["layer2.0.conv1"].options_path == ("options",)


def test_without_a_scheme_of_its_own_a_recipe_gives_its_options_to_every_rule() -> None:
    recipe = parse_recipe("options: {rank: 4}\nrules: [{layers: '*conv1', scheme: basis}, {layers: '*2', scheme: cp}]")
    given = {a.layer: a.options for a in resolve(recipe, NET) if a.reason is None}
    assert given == {f"layer{name}": {"rank": 4} for name in ("1.0.conv1", "1.0.conv2", "2.0.conv1")}


def test_together_makes_one_family_of_a_rules_layers() -> None:
    recipe = parse_recipe("scheme: cp\nrules: [{layers: 'layer1*', family: together}]")
    assert [a.family for a in resolve(recipe, NET) if a.reason is None] == ["rules.0", "rules.0", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "scheme: cp\nexclude:\n- layer1.0.conv9",
            "KD204: mine.yaml line 3: exclude.0: 'layer1.0.conv9' matches no layer",
        ),
        ("scheme: cp\nexclude: layer1.0.conv9", "did you mean layer1.0.conv"),
        ("scheme: cp\nexclude: layer1", "; 'layer1.*' matches the layers inside it"),
        ("scheme: cp\ninclude: type:Conv3d", "; its types are Conv2d, Conv2dSame, ConvTranspose2d, Linear"),
        ("scheme: cp\ninclude: zzz", "; its layers are named like conv1, "),
        (
            "rules:\n- {layers: 'layer1*', scheme: cp}\n- {layers: '*conv1', scheme: basis}",
            "KD205: mine.yaml line 2: rules.0.layers and mine.yaml line 3: rules.1.layers both match layer1.0.conv1",
        ),
        (
            "rules: [{layers: '*mlp', scheme: cp}]",
            "KD204: mine.yaml line 1: rules.0.layers: this rule does nothing: all 1",
        ),
        ("rules: [{layers: '*mlp', scheme: cp}]", "(KD101); add them to `include`"),
        ("rules: [{layers: '*up', scheme: cp}]", "(KD104); see `kdna explain`"),
        (
            "rules:\n- {layers: layer1.0.conv1, scheme: cp}\n- {layers: '*1.0.conv1', scheme: cp}",
            "KD204: mine.yaml line 3: rules.1.layers: this rule does nothing: more specific rules match",
        ),
    ],
)
def test_a_pattern_or_rule_without_effect_is_refused(text: str, message: str) -> None:
    assert message in str(refused(text))


no_regex = st.text(max_size=12).filter(lambda pattern: precision(pattern) is not Precision.REGEX)
some_matching = st.sampled_from(["*", "*conv*", "type:Conv2d", *(layer.name for layer in NET)])


@given(no_regex | some_matching, st.sampled_from(NET))
def test_a_pattern_matches_with_its_own_precision_or_not_at_all(pattern: str, layer: Layer) -> None:
    assert best([pattern], layer) in (precision(pattern), Precision.NONE)


# ---- options, checked against the schemes' own fields


@dataclass(frozen=True)
class _Cp:
    name: ClassVar[str] = "cp"
    rank: int = 0
    sweeps: int | None = None


@dataclass(frozen=True)
class _Se:
    width: int | None = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "scheme: cp\noptions: {rnk: 3}",
            "KD202: mine.yaml line 2: options.rnk: _Cp has no such option; did you mean 'rank'",
        ),
        ("options: {rnk: 3}\nrules: [{layers: a, scheme: cp}]", "KD202: mine.yaml line 1: options.rnk"),
        ("scheme: cp\noptions: {name: x}", "its options are rank, sweeps"),
        ("scheme: cp\noptions: {rank: many}", "KD203: mine.yaml line 2: options.rank: must be a valid integer"),
        ("scheme: cp\nrouting: {name: se, widht: 3}", "KD202: mine.yaml line 2: routing.widht: _Se has no such option"),
        ("scheme: cp\nrules:\n- layers: a\n  options: {rank: 1.5}", "KD203: mine.yaml line 4: rules.0.options.rank"),
        ("scheme: cp\nrules:\n- {layers: a, routing: {name: se, w: 1}}", "KD202: mine.yaml line 3: rules.0.routing.w"),
    ],
)
def test_an_option_is_checked_against_the_schemes_fields(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_options(parse_recipe(text, name="mine.yaml"), {"cp": _Cp}, {"se": _Se}, {})
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(bundled()))
def test_the_options_of_a_bundled_recipe_are_its_schemes(name: str) -> None:
    check_options(load_recipe(name), SCHEMES, ROUTINGS, STEPS)


def test_right_options_pass() -> None:
    recipe = parse_recipe("scheme: cp\noptions: {rank: 3, sweeps: 2}\nrouting: {name: se, width: 4}")
    check_options(recipe, {"cp": _Cp}, {"se": _Se}, {})


# ---- the bundled recipes


def test_the_documented_recipes_are_bundled() -> None:
    presets = {
        f"kerneldna-{net}" for net in ("resnet18", "resnet50", "mobilenetv2", "mobilenetv2-050", "convnext-tiny")
    }
    assert set(bundled()) >= presets | {"kerneldna", "shared-cp", "shared-basis", "lowrank"}


@pytest.mark.parametrize("name", sorted(bundled()))
def test_a_bundled_recipe_is_valid_and_begins_with_a_description(name: str) -> None:
    recipe = load_recipe(name)
    comment = recipe.text.split("\n\n")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert all(len(line) <= 120 for line in recipe.text.splitlines())
    assert len(comment.split(". ")[0]) < 110  # `kdna recipe ls` shows the first sentence
    assert {"# Reaches:", "# Costs:", "# Runs on:"} <= {line[:10].rstrip() for line in comment.splitlines()} | {
        f"{line.split(':')[0]}:" for line in comment.splitlines()
    }


def _layers(model: torch.nn.Module) -> list[Layer]:
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            depthwise = getattr(module, "groups", 1) == module.weight.shape[0] > 1
            shape = tuple(module.weight.shape)
            layers.append(Layer(name, type(module).__name__, shape, reason="KD103" if depthwise else None))
    return layers


PRESETS = {
    "kerneldna-resnet18": ("resnet18", "resnet18", {}, [3, 3]),
    "kerneldna-resnet50": ("resnet50", "resnet50", {}, [2, 3, 2]),
    "kerneldna-mobilenetv2": ("mobilenetv2_100", "mobilenet_v2", {}, [2, 3, 2, 2] * 2),
    "kerneldna-mobilenetv2-050": ("mobilenetv2_050", "mobilenet_v2", {"width_mult": 0.5}, [2, 3, 2, 2] * 2),
    "kerneldna-convnext-tiny": ("convnext_tiny", "convnext_tiny", {}, [9, 9]),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("zoo", ["timm", "torchvision"])
def test_a_preset_finds_its_families_of_equal_shape_in_both_zoos(preset: str, zoo: str) -> None:
    in_timm, in_torchvision, options, sizes = PRESETS[preset]
    with torch.device("meta"):
        if zoo == "timm":
            model = timm.create_model(in_timm)
        else:
            model = torchvision.models.get_model(in_torchvision, weights=None, **options)
    layers = _layers(model)
    shapes = {layer.name: layer.shape for layer in layers}
    families: dict[str, list[str]] = {}
    for assignment in resolve(load_recipe(preset), layers):
        if assignment.reason is None:
            assert (assignment.scheme, assignment.routing) == ("kerneldna", "se")
            families.setdefault(str(assignment.family), []).append(assignment.layer)
    assert [len(families[f"rules.{index}"]) for index in range(len(sizes))] == sizes
    assert all(len({shapes[name] for name in members}) == 1 for members in families.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_how_many_parameters_it_leaves_and_adds(preset: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(PRESETS[preset][0])
    layers = _layers(model)
    shapes = {layer.name: layer.shape for layer in layers}
    assignments = resolve(load_recipe(preset), layers)
    before = params = sum(parameter.numel() for parameter in model.parameters())
    for rule in {one.family for one in assignments if one.reason is None}:
        family = [shapes[one.layer] for one in assignments if one.family == rule and one.reason is None]
        layout = SCHEMES["kerneldna"]().layout(family)
        stored = [size for part in (layout.shared, *layout.adapters) for size in part.values()]
        params += sum(math.prod(size) for size in stored if "residual_rank" not in size) - sum(map(math.prod, family))
    gates = gate_specs(model, form_routes(model, layers, assignments)[0])[1]
    text = (
        f"# Reaches: {(params + gates) / 1e6:.2f} of {before / 1e6:.2f} million parameters, {gates / 1e6:.2f} of them"
    )
    assert text in load_recipe(preset).text
    assert params + gates < before


def test_the_json_schema_knows_every_key() -> None:
    assert set(json_schema()["properties"]) == set(Recipe.model_fields)


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys, kdna_convert.inputs.recipe as r; r.load_recipe('shared-cp'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
