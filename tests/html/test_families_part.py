"""Laws of the part on families: each shows what it stores, and what is left out is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.small_nets import MEMBERS, OPTIONS, convert, small

from kdna_convert.api.layer_pictures import WITH_TAPS, as_kernels, chosen, family_pictures
from kdna_convert.core.specs import DataConfig, Family, Layer, ModelRef, Plan, Totals
from kdna_convert.html import Material
from kdna_convert.html.parts.opened_families import families
from kdna_convert.html.picture import FamilyPictures
from kdna_convert.network.derive import derived_layers
from kdna_convert.network.folder import Conversion
from kdna_convert.network.folder.report import FamilyFit, Report
from kdna_convert.schemes import SCHEMES

SIZE = Totals(1000, 4000, 10_000)


def conversion(scheme: str) -> Conversion:
    net = small()
    family = convert(net, scheme)
    layers = tuple(Layer(name, "Conv2d", (6, 6, 3, 3)) for name in MEMBERS)
    plan = Plan(ModelRef("small"), (family,), layers, SIZE, SIZE, stored={MEMBERS[0]: 300})
    fit = FamilyFit(MEMBERS[0], {name: 0.1 * (place + 1) for place, name in enumerate(MEMBERS)}, None, 1.0)
    return Conversion(net, plan, DataConfig(), "", Report(families=(fit,)))


def shown(made: Conversion, pictures: tuple[FamilyPictures, ...], **known: object) -> str:
    part = families(Material("", plan=made.plan, report=made.report, families=pictures, **known))  # type: ignore[arg-type]
    assert part is not None
    return f"{part.sentence} {part.body}"


def test_every_scheme_says_which_of_its_tensors_hold_whole_taps() -> None:
    assert {*WITH_TAPS} == {*SCHEMES} == {*OPTIONS}


@pytest.mark.parametrize("scheme", OPTIONS)
def test_every_scheme_has_pictures_of_what_it_stores(scheme: str) -> None:
    made = conversion(scheme)
    (family,) = family_pictures(made, small())
    stored = derived_layers(made.model)[MEMBERS[0]]
    assert [each.letter for each in family.shared] == [*stored.shared]
    assert [member.name for member in family.members] == [*MEMBERS]
    assert [each.letter for each in family.members[0].adapter] == [*stored.adapter]
    assert [each.shape for each in family.shared] == [tuple(each.shape) for each in stored.shared.values()]
    text = shown(made, (family,))
    assert ("Nothing is shared" in text) == (not family.shared)


@pytest.mark.parametrize("scheme", OPTIONS)
def test_a_tensor_with_whole_taps_is_shown_as_kernels(scheme: str) -> None:
    made = conversion(scheme)
    stored = derived_layers(made.model)[MEMBERS[0]]
    tensors = {**stored.shared, **stored.adapter}
    for letter in WITH_TAPS[scheme]:
        assert as_kernels(tensors[letter], (3, 3)).shape[2:] == (3, 3)


def test_the_difference_of_a_layer_is_after_less_before_and_its_share_of_the_energy_is_told() -> None:
    made, original = conversion("basis"), small()
    (family,) = family_pictures(made, original)
    for member in family.members:
        before = original.get_submodule(member.name).weight.detach().double()
        gap = made.model.get_submodule(member.name).weight.detach().double() - before
        assert member.changed == pytest.approx(float(gap.square().sum() / before.square().sum()), rel=1e-5)
        assert member.before is not None
        assert member.difference is not None
        assert member.before.scale == member.after.scale == member.difference.scale


def test_without_the_original_only_the_kernels_after_are_shown() -> None:
    made = conversion("cp")
    (family,) = family_pictures(made, None)
    assert all(member.before is None and member.difference is None for member in family.members)
    assert "The kernels before are missing: no weights." in shown(made, (family,), missing="no weights")


def test_the_layer_with_the_largest_error_is_shown_first() -> None:
    made = conversion("cp")
    text = shown(made, family_pictures(made, small()))
    assert f'<option value="2" selected>{MEMBERS[2]}, error 3.0e-01' in text


def test_the_curve_of_a_family_is_drawn_where_it_is_known() -> None:
    made = conversion("cp")
    pictures = family_pictures(made, small())
    assert "<svg" not in shown(made, pictures)
    made.plan = replace(made.plan, nested={MEMBERS[0]: (0.5, 0.3, 0.2, 0.1, 0.05)})
    text = shown(made, pictures)
    assert "<svg" in text
    assert "It was given 5, the large point." in text


def test_indices_are_counted_and_not_drawn() -> None:
    made = conversion("codebook")
    (family,) = family_pictures(made, small())
    index = next(each for each in family.members[0].adapter if each.letter == "K")
    codes = derived_layers(made.model)[MEMBERS[0]].adapter["K"]
    assert index.picture is None
    assert index.distinct == len(codes.unique())


def test_half_of_what_is_chosen_is_the_largest_and_the_rest_has_the_largest_error() -> None:
    sizes, errors = [9, 8, 1, 1, 1, 1], [0.0, 0.0, 0.1, 0.5, 0.2, 0.4]
    assert chosen(range(6), 4, lambda item: sizes[item], lambda item: errors[item]) == [0, 1, 3, 5]
    assert chosen(range(6), 12, lambda item: sizes[item], lambda item: errors[item]) == [*range(6)]


def test_layers_and_families_that_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = conversion("cp")
    monkeypatch.setattr("kdna_convert.api.layer_pictures.MEMBERS", 2)
    pictures = family_pictures(made, small())
    assert [member.name for member in pictures[0].members] == [MEMBERS[0], MEMBERS[2]]
    assert "Left out: 1 more of its layers" in shown(made, pictures)
    made.plan = replace(made.plan, families=(*made.plan.families, Family("cp", ("head",), {"rank": 2})))
    assert "1 of 2 families are here" in shown(made, pictures)


def test_a_conversion_that_shares_nothing_says_how_to_share() -> None:
    made = conversion("cp")
    part = families(Material("", plan=replace(made.plan, families=())))
    assert part is not None
    assert "kdna convert" in part.sentence
    assert not part.body


def test_without_the_converted_net_the_part_says_why() -> None:
    made = conversion("cp")
    assert "The tensors were not opened: no trust." in shown(made, (), missing="no trust")
    assert families(Material("")) is None


def test_pictures_of_a_net_on_half_precision_are_those_of_its_numbers() -> None:
    made = conversion("cp")
    made.model.half()
    (family,) = family_pictures(made, small())
    assert all(np.isfinite(member.after.scale) for member in family.members)
