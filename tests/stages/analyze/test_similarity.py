"""Laws of similarities: values in [0, 1], known answers, and invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdna_convert.core.linalg import Kronecker, Moment
from kdna_convert.stages.analyze.similarity import (
    METRICS,
    Kernel,
    angles,
    centered_gram,
    cka,
    comparable,
    cosine,
    explained,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(size: int, seed: int = 0) -> Tensor:
    root = draw(size, 3 * size, seed=seed)
    return root @ root.T / (3 * size)


def kernel(shape: tuple[int, ...], seed: int = 0, second: Moment | None = None, gram: Tensor | None = None) -> Kernel:
    return Kernel(shape, draw(*shape, seed=seed).flatten(1), second, gram)


def rotation(size: int, seed: int = 7) -> Tensor:
    return torch.linalg.qr(draw(size, size, seed=seed)).Q


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 4),
    out=st.integers(1, 6),
    channels=st.integers(1, 4),
    taps=st.lists(st.sampled_from([(), (1, 1), (3, 3), (1, 3)]), min_size=4, max_size=4),
    seed=st.integers(0, 100),
    scale=st.sampled_from([0.0, 1e-12, 1.0, 1e9]),
)
def test_every_measure_lies_between_0_and_1(
    count: int, out: int, channels: int, taps: list[tuple[int, ...]], seed: int, scale: float
) -> None:
    shapes = [(out + index, channels, *taps[index]) for index in range(count)]
    grams = [centered_gram(draw(8, 5, seed=seed + index)) for index in range(count)]
    kernels = [
        Kernel(s, scale * draw(*s, seed=seed + i).flatten(1), moment(math.prod(s[1:]), seed + i), grams[i])
        for i, s in enumerate(shapes)
    ]
    for name, metric in METRICS.items():
        values = metric(kernels)
        assert values.shape == (count, count), name
        defined = values[~values.isnan()]
        assert ((defined >= 0) & (defined <= 1)).all(), name
        if name != "explained":
            torch.testing.assert_close(values, values.T, equal_nan=True)


@pytest.mark.parametrize("name", ["angles", "cka", "cosine"])
def test_the_similarity_of_a_layer_to_itself_is_1(name: str) -> None:
    one = kernel((6, 4, 3, 3), gram=centered_gram(draw(20, 50)))
    assert METRICS[name]([one, one]).flatten().tolist() == pytest.approx([1.0] * 4)


# explained


def test_explained_is_what_the_best_mixing_of_the_basis_leaves_of_real_outputs() -> None:
    """Against least squares on the inputs themselves: no moments, no normal equations."""
    inputs_np = draw(500, 8, seed=3) @ draw(8, 8, seed=4)
    first, second = kernel((6, 8), 1, moment(8, 1)), kernel((5, 8), 2, inputs_np.T @ inputs_np / 500)
    output_moment = first.kernel_on @ first.moment @ first.kernel_on.T  # type: ignore[operator]
    basis_rn = torch.linalg.eigh(output_moment).eigenvectors[:, -3:].T @ first.kernel_on
    y_no = inputs_np @ second.kernel_on.T
    seen_nr = inputs_np @ basis_rn.T
    left = y_no - seen_nr @ torch.linalg.lstsq(seen_nr, y_no).solution
    share = 1 - left.square().sum() / y_no.square().sum()
    assert explained([first, second])[0, 1].item() == pytest.approx(share.item(), rel=1e-4)


def test_a_moment_that_rounding_made_indefinite_is_explained_as_without_the_rounding() -> None:
    """Inputs of rank 3 in float32: the Gram matrix of a basis of 4 rows has no Cholesky factor."""
    inputs_np = draw(500, 3, seed=3) @ draw(3, 8, seed=4)
    exact = inputs_np.T @ inputs_np / 500
    rounded = exact - 1e-4 * exact.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    shares = [explained([kernel((8, 8), 1, one), kernel((8, 8), 2, one)]) for one in (exact, rounded)]
    assert ((shares[1] >= 0) & (shares[1] <= 1)).all()
    torch.testing.assert_close(shares[1], shares[0], atol=5e-3, rtol=0)


def test_a_layer_made_of_anothers_filters_is_explained_and_not_the_other_way_round() -> None:
    first = kernel((8, 4, 3, 3), 1, moment(36, 1))
    output = first.kernel_on @ first.moment @ first.kernel_on.T  # type: ignore[operator]
    leading = torch.linalg.eigh(output).eigenvectors[:, -4:]
    child = Kernel((8, 4, 3, 3), draw(8, 4) @ leading.T @ first.kernel_on, moment(36, 2))
    values = explained([first, child])
    assert values[0, 1] == pytest.approx(1.0, abs=1e-4)
    assert values[1, 0] < 0.95


def test_explained_depends_on_the_data_where_angles_cannot() -> None:
    """Rows that differ only where the inputs never go are alike to the data."""
    silent = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-12, 1e-12, 1e-12], dtype=torch.float64))
    common = draw(2, 3)
    a, b = (Kernel((2, 6), torch.cat([common, 9 * draw(2, 3, seed=s)], 1), silent) for s in (1, 2))
    assert explained([a, b])[0, 1] > 0.5
    assert angles([a, b])[0, 1] < 0.5


def test_explained_and_angles_ignore_a_rotation_of_the_outputs() -> None:
    one, other = kernel((6, 4, 3, 3), 1, moment(36, 1)), kernel((6, 4, 3, 3), 2, moment(36, 2))
    turned = Kernel(one.shape, rotation(6) @ one.kernel_on, one.moment)
    for metric in (explained, angles):
        torch.testing.assert_close(metric([turned, other]), metric([one, other]), rtol=1e-6, atol=1e-6)


def test_explained_ignores_the_scale_of_weights_and_inputs() -> None:
    one, other = kernel((6, 9), 1, moment(9, 1)), kernel((6, 9), 2, moment(9, 2))
    scaled = Kernel(other.shape, 1e4 * other.kernel_on, 1e-6 * other.moment)  # type: ignore[operator]
    torch.testing.assert_close(explained([one, scaled]), explained([one, other]), rtol=1e-6, atol=1e-8)


def test_a_kronecker_moment_means_its_product() -> None:
    factors = [Kronecker(moment(4, seed), moment(9, seed + 5)) for seed in (1, 2)]
    split = [kernel((6, 4, 3, 3), seed, factors[seed]) for seed in (0, 1)]
    whole = [kernel((6, 4, 3, 3), seed, torch.kron(*factors[seed])) for seed in (0, 1)]
    torch.testing.assert_close(explained(split), explained(whole))
    mixed = [kernel((6, 4, 1, 1), 3, moment(4))]
    torch.testing.assert_close(explained(split + mixed), explained(whole + mixed))


def test_no_moment_means_the_identity() -> None:
    bare, whole = ([kernel((6, 9), seed, second) for seed in (1, 2)] for second in (None, torch.eye(9).double()))
    torch.testing.assert_close(explained(bare), explained(whole))


def test_a_silent_layer_is_explained_and_explains_nothing() -> None:
    silent = Kernel((4, 9), torch.zeros(4, 9, dtype=torch.float64))
    values = explained([silent, kernel((4, 9))])
    assert values[:, 0].tolist() == [1.0, 1.0]
    assert values[0, 1] == 0


# Kernels of different taps


def test_kernels_of_different_taps_are_compared_by_channel() -> None:
    point, square = kernel((6, 4, 1, 1), 1, moment(4)), kernel((5, 4, 3, 3), 2, moment(36))
    assert [tuple(k.kernel_on.shape) for k in comparable([point, square])] == [(4, 4), (4, 4)]
    assert explained([point, square]).isfinite().all()
    assert angles([point, square]).isfinite().all()
    assert cosine([point, square])[0, 1].isnan()


def test_kernels_of_equal_taps_are_compared_whole() -> None:
    pair = [kernel((6, 4, 3, 3)), kernel((2, 4, 3, 3))]
    assert comparable(pair) == pair


def test_a_tall_kernel_is_shortened_without_a_change_of_its_gram() -> None:
    tall = kernel((20, 6), 0, moment(6))
    (short,) = comparable([tall])
    assert short.kernel_on.shape == (6, 6)
    torch.testing.assert_close(short.kernel_on.T @ short.kernel_on, tall.kernel_on.T @ tall.kernel_on)


def test_the_channels_own_moment_is_the_mean_over_taps() -> None:
    second = moment(12)
    (wide, _) = comparable([kernel((5, 4, 3), 0, second), kernel((5, 4, 1), 0, moment(4))])
    expected = sum(second[tap::3, tap::3] for tap in range(3)) / 3
    torch.testing.assert_close(wide.moment, expected)


# angles, cka, cosine


def test_angles_between_orthogonal_row_spaces_are_zero() -> None:
    both = rotation(8)
    assert angles([Kernel((4, 8), both[:4]), Kernel((4, 8), both[4:])])[0, 1] == pytest.approx(0, abs=1e-12)


def test_cosine_finds_a_permutation_of_the_output_channels() -> None:
    one = kernel((6, 4, 3, 3))
    shuffled = Kernel(one.shape, 3 * one.kernel_on[torch.randperm(6)])
    assert cosine([one, shuffled])[0, 1].item() == pytest.approx(1.0)


def test_cosine_between_shapes_is_undefined() -> None:
    values = cosine([kernel((6, 4)), kernel((5, 4))])
    assert values.isnan().tolist() == [[False, True], [True, False]]


def test_cka_ignores_rotation_and_scale_of_the_features() -> None:
    x = draw(40, 12)
    grams = [centered_gram(x), centered_gram(5 * x @ rotation(12) + 3)]
    values = cka([Kernel((1, 1), draw(1, 1), gram_ee=gram) for gram in grams])
    assert values[0, 1].item() == pytest.approx(1.0, abs=1e-5)


def test_cka_of_unrelated_wide_features_on_few_images_is_near_zero() -> None:
    """Plain CKA says 0.9 here: it is biased upwards when features outnumber examples."""
    first, second = draw(64, 1000, seed=1), draw(64, 1000, seed=2)
    grams = [centered_gram(first), centered_gram(second)]
    assert cka([Kernel((1, 1), draw(1, 1), gram_ee=gram) for gram in grams])[0, 1] < 0.05
    plain = [(x - x.mean(0)) @ (x - x.mean(0)).T for x in (first, second)]
    assert (plain[0] * plain[1]).sum() / (plain[0].norm() * plain[1].norm()) > 0.9


def test_cka_is_undefined_where_outputs_are_unknown() -> None:
    values = cka([kernel((2, 2)), kernel((2, 2), gram=centered_gram(draw(9, 3)))])
    assert values.isnan().tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("features", [torch.zeros(3, 5), torch.ones(10, 5)])
def test_too_few_or_equal_examples_have_no_gram(features: Tensor) -> None:
    assert centered_gram(features) is None
