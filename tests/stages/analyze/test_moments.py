"""Laws of calibration: moments of unfolded patches, sensitivities equal to autograd's, an unchanged net."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from kdna_convert.core.errors import CheckpointError, DataError, FolderError, ModelError, NumericsError, PlanError
from kdna_convert.core.fingerprint import Fingerprint
from kdna_convert.core.linalg import Kronecker
from kdna_convert.core.specs import Layer
from kdna_convert.network.patches import choose
from kdna_convert.stages.analyze import collect as collecting
from kdna_convert.stages.analyze.collect import Gradients, Sampling, collect
from kdna_convert.stages.analyze.moments import MomentForm, Moments, needed, plan_memory
from kdna_convert.stages.analyze.moments_file import load_moments, save_moments
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.tasks.sampled_labels import draw


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.5


def moments_of(model: nn.Module, batches: list[Tensor], **options: Any) -> Moments:
    sampling = Sampling(options.pop("positions", None), seed=options.pop("seed", 0))
    return collect(model, survey(model, batches[0]), batches, sampling=sampling, **options)


def unfolded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Every patch as a row, float64, by torch's own unfold; the groups' patches are rows of their own."""
    if isinstance(conv, Conv2dSame):
        x = F.pad(x, (0, 1, 0, 1) if x.shape[-1] % 2 == 0 else (1, 1, 1, 1))
    elif conv.padding_mode != "zeros":
        x = F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
    elif conv.padding == "same":
        x = F.pad(x, conv._reversed_padding_repeated_twice)
    else:
        x = F.pad(x, (conv.padding[1],) * 2 + (conv.padding[0],) * 2)
    parts = [
        F.unfold(part.double(), conv.kernel_size, stride=conv.stride, dilation=conv.dilation).transpose(1, 2)
        for part in x.chunk(conv.groups, dim=1)
    ]
    return torch.cat([part.flatten(0, 1) for part in parts])


CONVS = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "pointwise": nn.Conv2d(4, 6, 1),
    "strided": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)),
    "dilated": nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "reflect": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular"),
    "same": nn.Conv2d(4, 6, (2, 4), padding="same"),
    "timm same": Conv2dSame(4, 6, 3, stride=2),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("size", [(9, 9), (8, 8)])
def test_moments_are_those_of_unfolded_patches(name: str, size: tuple[int, int]) -> None:
    x = noise(12, 4, *size)
    rows = unfolded(CONVS[name], x)
    moments = moments_of(nn.Sequential(CONVS[name]), list(x.split(5)))["0"]
    assert isinstance(moments.second, Tensor)
    assert moments.count == len(rows)
    expected = rows.T @ rows / len(rows)
    assert (moments.second - expected).norm() <= 1e-5 * expected.norm()
    torch.testing.assert_close(moments.mean, rows.mean(0).float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(moments.second, moments.second.T)


def test_float32_sums_stay_exact_over_many_batches() -> None:
    x = noise(2000, 4, 6, 6) * 1000
    moments = moments_of(nn.Sequential(CONVS["plain"]), list(x.split(4)), gradients="none")["0"]
    rows = unfolded(CONVS["plain"], x)
    expected = rows.T @ rows / len(rows)
    assert (moments.second - expected).norm() <= 1e-5 * expected.norm()


def test_patches_in_small_chunks_are_the_same_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(7, 4, 9, 9)
    whole = moments_of(nn.Sequential(CONVS["strided"]), [x])["0"]
    monkeypatch.setattr("kdna_convert.network.patches._CHUNK", 1)
    torch.testing.assert_close(moments_of(nn.Sequential(CONVS["strided"]), [x])["0"].second, whole.second)


@pytest.mark.parametrize("shape", [(10, 5), (10, 7, 5), (10, 3, 2, 5)])
def test_a_linear_layer_sees_its_inputs_as_they_are(shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    rows = x.reshape(-1, 5).double()
    moments = moments_of(nn.Sequential(nn.Linear(5, 3)), [x])["0"]
    torch.testing.assert_close(moments.second, (rows.T @ rows / len(rows)).float())
    assert moments.count == len(rows)


@pytest.mark.parametrize(
    ("module", "x"), [(nn.Conv1d(4, 6, 3), noise(8, 4, 12)), (nn.Conv3d(2, 6, (1, 3, 2)), noise(8, 2, 3, 5, 4))]
)
def test_moments_in_other_dimensions_give_the_output_energy(module: nn.Module, x: Tensor) -> None:
    """tr(W C W^T) is the mean of |y|^2, which needs no unfolding to know."""
    moments = moments_of(nn.Sequential(module), [x])["0"]
    kernel = module.weight.detach().flatten(1)
    y = module(x).detach() - module.bias.detach().view(-1, *[1] * (x.dim() - 2))
    assert isinstance(moments.second, Tensor)
    torch.testing.assert_close((kernel @ moments.second @ kernel.T).trace(), y.square().sum(1).mean())
    torch.testing.assert_close(kernel @ moments.mean, y.movedim(1, -1).flatten(0, -2).mean(0))


def test_a_layer_that_runs_twice_is_seen_twice() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    model, x = Recurrent(), noise(6, 4, 5, 5)
    rows = torch.cat([unfolded(model.conv, x), unfolded(model.conv, model.conv(x).detach())])
    moments = moments_of(model, [x])["conv"]
    torch.testing.assert_close(moments.second, (rows.T @ rows / len(rows)).float())


def test_drawn_positions_are_few_seeded_and_close_to_all() -> None:
    model, batches = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), list(noise(400, 2, 16, 16).split(50))
    everything = moments_of(model, batches)["0"].second
    drawn = moments_of(model, batches, positions=40)["0"]
    again = moments_of(model, batches, positions=40)["0"]
    other = moments_of(model, batches, positions=40, seed=1)["0"]
    assert drawn.count == 400 * 40
    assert torch.equal(drawn.second, again.second)  # type: ignore[arg-type]
    assert not torch.equal(drawn.second, other.second)  # type: ignore[arg-type]
    assert (drawn.second - everything).norm() < 0.04 * everything.norm()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(("images", "count"), [(2, 2 * 40), (50, 50 * 12), (400, 400 * 2), (1000, 1000)])
def test_a_fixed_multiple_of_patches_is_drawn_at_least_one_of_each_image(images: int, count: int) -> None:
    """Patches of 18 numbers, 32 times: 576 in all."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1))
    x = noise(images, 2, 8, 8)
    sampling = Sampling(40, patches=32, images=images)
    assert collect(net, survey(net, x[:1]), [x], sampling=sampling)["0"].count == count


def test_every_position_is_drawn_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = choose(60_000, 10, 4, generator)
    assert drawn is not None
    share = torch.bincount(drawn.flatten(), minlength=10) / drawn.numel()
    torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0.03, atol=0)
    assert choose(5, 10, 10, generator) is None


# Kronecker factors and memory


def test_kronecker_factors_are_the_partial_traces() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 6, (2, 3), groups=2)), noise(6, 4, 7, 7)
    full = moments_of(model, [x])["0"].second
    factors = moments_of(model, [x], memory=4 * 12 * 12 - 1)["0"].second
    assert isinstance(factors, Kronecker)
    assert isinstance(full, Tensor)
    full_itjs = full.view(2, 6, 2, 6)
    torch.testing.assert_close(factors.channels_cc, torch.einsum("itjt->ij", full_itjs) / 6)
    taps = torch.einsum("itis->ts", full_itjs)
    torch.testing.assert_close(factors.taps_tt, taps * 6 / taps.trace())
    torch.testing.assert_close(torch.kron(*factors).trace(), full.trace())


def layer(name: str, channels: int, taps: int = 9) -> Layer:
    return Layer(name, "Conv2d", (8, channels, taps))


def test_with_enough_memory_every_moment_is_full() -> None:
    layers = [layer("narrow", 64), layer("wide", 512), layer("pointwise", 2048, 1)]
    assert plan_memory(layers, 2**40) == {"narrow": "full", "wide": "full", "pointwise": "full"}


def test_with_less_memory_the_largest_moments_become_kronecker_or_are_left_out() -> None:
    layers = [layer("small", 10), layer("large", 100), layer("pointwise", 500, 1)]
    whole: dict[str, MomentForm] = dict.fromkeys(("small", "large", "pointwise"), "full")
    assert plan_memory(layers, needed(layers, whole)) == whole
    assert plan_memory(layers, needed(layers, whole) - 1) == whole | {"large": "kronecker"}
    factors: dict[str, MomentForm] = {"small": "kronecker", "large": "kronecker"}
    assert plan_memory(layers, needed(layers, factors)) == factors
    assert plan_memory(layers, 0) == {}


@pytest.mark.parametrize("memory", [10**power for power in range(2, 9)])
def test_planned_moments_fit(memory: int) -> None:
    layers = [layer("small", 10), layer("large", 100), layer("pointwise", 500, 1)]
    assert needed(layers, plan_memory(layers, memory)) <= memory


def test_layers_without_memory_or_never_reached_have_no_moments() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model, x = Half(), noise(4, 4, 3, 3)
    layers = [Layer("used", "Conv2d", (4, 4, 1, 1)), Layer("unused", "Conv2d", (4, 4, 1, 1))]
    assert set(collect(model, layers, [x])) == {"used"}
    assert collect(model, layers, [x], memory=10) == {}
    room = needed(layers, {"used": "full", "unused": "full"})
    assert set(collect(model, layers, [x], memory=room)) == {"used"}
    assert collect(model, layers, [x], memory=room, gradients="pairs") == {}  # the gradients' take the room


# Sensitivity


class SkipNet(nn.Module):
    """Inplace activations, a batch norm and a skip: what autograd hooks must survive."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.stem(x))
        return self.head(F.relu_(self.norm(self.conv(x)) + x).mean((2, 3)))


def test_gradients_are_the_second_moment_of_autograds_own() -> None:
    torch.manual_seed(0)
    model, batches, seed = SkipNet().eval(), list(noise(11, 3, 6, 6).split(4)), 3
    moments = moments_of(model, batches, seed=seed, gradients="pairs")
    alone = moments_of(model, batches, seed=seed)
    expected_of = dict.fromkeys(("stem", "conv", "head"), torch.zeros(()))
    for number, batch in enumerate(batches):
        generator = torch.Generator().manual_seed(seed + 7919 * number)
        stem = model.stem(batch)
        conv = model.conv(F.relu(stem))
        logits = model.head(F.relu(model.norm(conv) + F.relu(stem)).mean((2, 3)))
        labels, weights = draw((logits / 2).softmax(1).detach(), generator)
        loss = (weights * F.cross_entropy(logits / 2, labels, reduction="none")).sum()
        for name, gradient in zip(expected_of, torch.autograd.grad(loss, (stem, conv, logits)), strict=True):
            flat = gradient.transpose(0, 1).flatten(1)
            expected_of[name] = expected_of[name] + flat @ flat.T / 11
    for name, expected in expected_of.items():
        torch.testing.assert_close(moments[name].gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        torch.testing.assert_close(alone[name].gradient, expected.diagonal(), rtol=1e-4, atol=0.0)
        assert moments[name].sensitivity == pytest.approx(float(expected.diagonal().mean()), rel=1e-4)
        assert alone[name].sensitivity == pytest.approx(moments[name].sensitivity, rel=1e-5)


def test_gradients_of_a_grouped_layer_are_kept_by_channel() -> None:
    conv = nn.Conv2d(4, 6, 1, groups=2)
    moments = moments_of(
        nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()), [noise(8, 4, 3, 3)], gradients="pairs"
    )["0"]
    assert moments.gradient.shape == (6,)
    assert float(moments.gradient.min()) > 0


def test_a_uniform_net_has_the_sensitivity_of_its_softmax() -> None:
    head = nn.Linear(6, 5)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    moments = moments_of(nn.Sequential(head), [noise(20, 6)])["0"]
    assert moments.sensitivity == pytest.approx((1 - 1 / 5) / 2**2 / 5)


def test_sensitivity_is_zero_if_not_requested_or_not_defined() -> None:
    x = noise(4, 3, 6, 6)
    assert all(item.sensitivity == 0 for item in moments_of(SkipNet(), [x], gradients="none").values())
    assert moments_of(nn.Sequential(nn.Conv2d(3, 4, 3)), [x])["0"].sensitivity == 0


def test_a_net_with_no_grad_inside_can_be_calibrated() -> None:
    class Detached(SkipNet):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = F.relu_(self.conv(self.stem(x)))
            return self.head(x.mean((2, 3)))

    moments = moments_of(Detached(), [noise(4, 3, 6, 6)])
    assert [moments[name].sensitivity > 0 for name in ("stem", "conv", "head")] == [False, False, True]


def test_sensitivity_does_not_change_the_moments() -> None:
    model, x = SkipNet(), noise(8, 3, 9, 9)
    with_it = moments_of(model, [x], positions=10)["conv"]
    without = moments_of(model, [x], positions=10, gradients="none")["conv"]
    assert torch.equal(with_it.second, without.second)  # type: ignore[arg-type]


# The pass itself


def test_a_batch_too_large_for_the_backward_pass_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval(), torch.randn(10, 3, 8, 8)
    layers, sizes = survey(net, x[:1]), []
    whole = collect(net, layers, [x], sampling=Sampling(None))
    monkeypatch.setattr(collecting, "GRAPH", 2 * 4 * (4 * 36 + 5) * 3)
    with net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0]))):
        parts = collect(net, layers, [x], sampling=Sampling(None))
    assert sizes == [3, 3, 3, 1]
    for name, moments in parts.items():
        assert torch.allclose(moments.second, whole[name].second, atol=1e-5)
        assert moments.gram_ee is not None
        assert torch.allclose(moments.gram_ee, whole[name].gram_ee, atol=1e-5)
        assert moments.sensitivity == pytest.approx(whole[name].sensitivity, rel=0.5)  # other labels are drawn


@pytest.mark.parametrize("gradients", ["squares", "pairs"])
def test_squares_are_averages_over_the_first_images(monkeypatch: pytest.MonkeyPatch, gradients: Gradients) -> None:
    torch.manual_seed(0)
    model, batches = SkipNet().eval(), list(noise(12, 3, 6, 6).split(4))
    first, whole = (moments_of(model, some, gradients=gradients) for some in (batches[:2], batches))
    monkeypatch.setattr(collecting, "BACKWARD", 8)
    less = moments_of(model, batches, gradients=gradients)
    for name, item in less.items():
        assert torch.equal(item.packed[0], whole[name].packed[0])
        torch.testing.assert_close(item.gradient, (first if gradients == "squares" else whole)[name].gradient)


class Limited(SkipNet):
    """A net whose device has memory for `most` images: more fail in the middle of the forward or of the backward."""

    def __init__(self, where: str, most: int) -> None:
        super().__init__()
        self.where, self.most = where, most

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(F.relu_(self.stem(x))))
        if len(x) > self.most and self.where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(x) > self.most and y.requires_grad:
            y.register_hook(self.fail)
        return self.head(F.relu_(y).mean((2, 3)))

    def fail(self, gradient: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_device_out_of_memory_gets_fewer_images_and_each_image_counts_once(where: str) -> None:
    torch.manual_seed(0)
    net, batches, notes = Limited(where, 40), list(noise(60, 3, 6, 6).split(20)), []
    layers = survey(net, batches[0])
    whole = collect(net, layers, batches, sampling=Sampling(None))
    net.most = 8
    halved = collect(net, layers, batches, sampling=Sampling(None), notes=notes)
    assert notes == ["cpu was out of memory: calibrated 5 images at a time"]
    for name, item in halved.items():
        assert item.count == whole[name].count
        torch.testing.assert_close(item.packed[0], whole[name].packed[0])
        torch.testing.assert_close(item.gram_ee, whole[name].gram_ee)
        assert item.sensitivity == pytest.approx(whole[name].sensitivity, rel=0.5)  # other labels are drawn


def test_a_device_without_memory_for_one_image_fails() -> None:
    layers = survey(SkipNet(), noise(1, 3, 6, 6))
    with pytest.raises(torch.OutOfMemoryError):
        collect(Limited("forward", 0), layers, [noise(4, 3, 6, 6)])


def test_one_pass_over_the_batches_is_enough_and_reported() -> None:
    calls: list[tuple[str, int, int]] = []

    def once() -> Iterator[Tensor]:
        yield from noise(6, 3, 6, 6).split(3)

    model = SkipNet()
    layers = survey(model, noise(1, 3, 6, 6))
    moments = collect(model, layers, once(), progress=lambda *step: calls.append(step))
    assert set(moments) == {"stem", "conv", "head"}
    assert calls == [("calibrate", 1, 1), ("calibrate", 2, 2)]


def test_calibration_restores_the_model_even_after_an_error() -> None:
    model = SkipNet().train()
    model.norm.eval()
    model.head.bias.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = survey(model, noise(1, 3, 6, 6))
    collect(model, layers, [noise(4, 3, 6, 6)])
    with pytest.raises(ModelError, match="KD307"):
        collect(model, layers, [noise(4, 2, 6, 6)])
    assert (model.training, model.norm.training) == (True, False)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.conv._forward_hooks


def test_no_image_is_kd405() -> None:
    with pytest.raises(DataError, match="KD405"):
        collect(SkipNet(), survey(SkipNet(), noise(1, 3, 6, 6)), [])


def test_nan_in_a_weight_is_named() -> None:
    model = SkipNet()
    layers = survey(model, noise(1, 3, 6, 6))
    model.conv.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericsError, match=r"KD701: conv\.weight"):
        collect(model, layers, [noise(4, 3, 6, 6)])


@pytest.mark.parametrize("gradients", ["squares", "none"])
def test_nan_in_activations_names_the_first_layer_that_sees_it(gradients: Gradients) -> None:
    model = SkipNet()
    layers = survey(model, noise(1, 3, 6, 6))
    model.stem.bias.data[0] = 1e38
    model.conv.weight.data[:, 0] = 1e38
    with pytest.raises(NumericsError, match="KD702: conv"):
        collect(model, layers, [noise(4, 3, 6, 6)], gradients=gradients)


def test_a_net_whose_output_alone_is_not_finite_says_so() -> None:
    model = SkipNet()
    layers = survey(model, noise(1, 3, 6, 6))
    model.head.bias.data[0] = 3e38
    model.head.weight.data[0] = 3e38
    with pytest.raises(NumericsError, match="KD702: the model's output"):
        collect(model, layers, [noise(4, 3, 6, 6)])


# Examples for CKA


def test_grams_have_norm_one_and_cover_the_same_images() -> None:
    model, batches = SkipNet(), list(noise(300, 3, 6, 6).split(100))
    for item in moments_of(model, batches, gradients="none").values():
        assert item.gram_ee is not None
        assert item.gram_ee.shape == (256, 256)
        torch.testing.assert_close(item.gram_ee.norm(), torch.tensor(1.0))
        torch.testing.assert_close(item.gram_ee.sum(1), torch.zeros(256), rtol=0, atol=1e-4)


def test_a_layer_with_windows_in_its_batch_has_no_gram() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x.flatten(0, 1))

    assert moments_of(Windows(), [noise(64, 4, 9, 9)])["proj"].gram_ee is None


# Files


def test_moments_survive_a_file(tmp_path: Path) -> None:
    model, x = SkipNet(), noise(8, 3, 6, 6)
    before = moments_of(model, [x], memory=4 * (27**2 + 36**2 + 4**2) - 1)
    assert isinstance(before["conv"].second, Kronecker)
    save_moments(tmp_path / "m.safetensors", before, Fingerprint("this"))
    after = load_moments(tmp_path / "m.safetensors", Fingerprint("this"))
    assert list(after) == list(before)
    for name, item in before.items():
        assert (after[name].count, after[name].sensitivity) == (item.count, item.sensitivity)
        for key in ("second", "mean", "gradient", "gram_ee"):
            torch.testing.assert_close(getattr(after[name], key), getattr(item, key), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_file_holds_one_triangle_of_each_moment(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(300, 2))
    save_moments(tmp_path / "m", moments_of(net, [noise(4, 300)]), Fingerprint("this"))
    assert (tmp_path / "m").stat().st_size == pytest.approx(4 * (300 * 301 // 2 + 300), rel=0.01)


def test_a_file_of_another_version_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdna_convert.stages.analyze.moments_file._FORMAT", "kdna-moments-2")
    save_moments(tmp_path / "m", moments_of(SkipNet(), [noise(4, 3, 6, 6)]), Fingerprint("this"))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"KD304: .*delete the file"):
        load_moments(tmp_path / "m", Fingerprint("this"))


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = moments_of(SkipNet(), [noise(4, 3, 6, 6)])
    with pytest.raises(FolderError, match=r"KD604: .*nowhere"):
        save_moments(tmp_path / "nowhere" / "m", moments, Fingerprint("this"))
    save_moments(tmp_path / "m", moments, Fingerprint("this"))

    def full_disk(tensors: object, name: str, metadata: object) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdna_convert.core.tensorfile.save_file", full_disk)
    with pytest.raises(FolderError, match="No space left"):
        save_moments(tmp_path / "m", {}, Fingerprint("that"))
    assert set(load_moments(tmp_path / "m", Fingerprint("this"))) == set(moments)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_moments_of_another_model_are_refused(tmp_path: Path) -> None:
    save_moments(tmp_path / "m", moments_of(SkipNet(), [noise(4, 3, 6, 6)]), Fingerprint("this"))
    with pytest.raises(PlanError, match="KD505"):
        load_moments(tmp_path / "m", Fingerprint("that"))


def test_a_truncated_or_foreign_file_of_moments_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_moments(path, moments_of(SkipNet(), [noise(4, 3, 6, 6)]), Fingerprint("this"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="KD304"):
        load_moments(path, Fingerprint("this"))
    with pytest.raises(CheckpointError, match="KD304"):
        load_moments(tmp_path / "missing", Fingerprint("this"))
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="KD304"):
        load_moments(path, Fingerprint("this"))


class Signs(torch.autograd.Function):
    """An operation without a backward pass."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        raise NotImplementedError("no backward pass")


def without_backward(x: Tensor) -> Tensor:
    return Signs.apply(x)


def changed_in_place(x: Tensor) -> Tensor:
    y = x.exp()
    return y.mul_(x)


def read_by_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy())


@pytest.mark.parametrize("hostile", [without_backward, changed_in_place, read_by_numpy])
def test_a_net_without_a_backward_pass_keeps_its_moments(hostile: Callable[[Tensor], Tensor]) -> None:
    class Hostile(SkipNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(hostile(self.conv(self.stem(x))).mean((2, 3)))

    net, batches = Hostile(), list(noise(8, 3, 6, 6).split(4))
    moments, plain = moments_of(net, batches), moments_of(net, batches, gradients="none")
    assert all(item.sensitivity == 0 for item in moments.values())
    for name, item in plain.items():
        assert torch.equal(moments[name].second, item.second)  # type: ignore[arg-type]


def test_a_gradient_that_is_not_finite_is_no_gradient() -> None:
    class Steep(SkipNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.stem(x))
            return self.head((x * 0).sqrt().mean((2, 3)))

    assert all(item.sensitivity == 0 for item in moments_of(Steep(), [noise(4, 3, 6, 6)]).values())


def test_a_forward_pass_that_fails_during_the_calibration_is_kd307() -> None:
    class Wary(SkipNet):
        def forward(self, x: Tensor) -> Tensor:
            assert x.abs().max() < 100, "far too bright"
            return super().forward(x)

    with pytest.raises(ModelError, match=r"KD307.*far too bright"):
        moments_of(Wary(), [noise(4, 3, 6, 6), 1000 * noise(4, 3, 6, 6)])
