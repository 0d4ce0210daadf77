"""Coding a net in a given number of bytes: the size is met, and rounding errors are fed back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from support.command import FEW_IMAGES, NET, kdna
from support.small_nets import OPTIONS
from support.tiny import SIZE, Net
from torch import Tensor, nn

import kdna_convert
from kdna_convert.codecs.quantization_steps import nearest_step, step_of
from kdna_convert.core.errors import PlanError
from kdna_convert.core.specs import Family
from kdna_convert.inputs.recipe import parse_recipe, parse_target
from kdna_convert.network.derive import derive, derived_layers
from kdna_convert.network.packed import pack, unpack
from kdna_convert.network.stored import stored_state
from kdna_convert.schemes import make
from kdna_convert.stages.analyze.collect import collect
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.code import code_to_size, sensitivity_of
from kdna_convert.stages.code.estimated_sizes import Pace
from kdna_convert.stages.code.factors import last_factor
from kdna_convert.stages.code.feedback_rounding import feedback_of, round_with_feedback
from kdna_convert.stages.code.row_costs import DAMPING
from kdna_convert.stages.code.sequential import balance, code_net
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.repair.net_pair import NetPair


def moment(size: int, seed: int = 0) -> Tensor:
    """A second moment of inputs that go together."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(size, size, generator=draw, dtype=torch.float64) * torch.linspace(2, 0.1, size).double()
    shared = torch.randn(size, 2, generator=draw, dtype=torch.float64)
    return mixed @ mixed.T / size + 3 * shared @ shared.T


def harm(weight: Tensor, integers: Tensor, step: float, moment_nn: Tensor) -> float:
    gap = weight - step * integers
    return float((gap @ moment_nn * gap).sum())


def test_rounding_with_feedback_leaves_less_error_than_plain_rounding() -> None:
    metric = moment(60)
    weight = torch.randn(20, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = step_of(nearest_step(0.5))
    fed = harm(weight, round_with_feedback(weight, nearest_step(0.5), feedback_of(metric)), step, metric)
    assert fed < 0.5 * harm(weight, (weight / step).round(), step, metric)


def test_the_error_of_rounding_with_feedback_is_the_expected_one() -> None:
    metric, columns = moment(60), feedback_of(moment(60))
    weight = torch.randn(200, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = step_of(nearest_step(0.02))
    ordered = metric[columns.order_n][:, columns.order_n]
    diagonal = torch.linalg.cholesky(torch.linalg.inv(ordered), upper=True).diagonal()
    expected = len(weight) * step**2 / 12 * float((1 / diagonal.square()).sum())
    assert harm(weight, round_with_feedback(weight, nearest_step(0.02), columns), step, metric) == pytest.approx(
        expected, rel=0.2
    )
    assert columns.spread == pytest.approx(float(diagonal.log().mean().exp()), rel=0.2)


def test_uncorrelated_inputs_are_rounded_plainly() -> None:
    metric = torch.diag(torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1)
    weight = torch.randn(5, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    number = nearest_step(0.3)
    assert torch.equal(round_with_feedback(weight, number, feedback_of(metric)), (weight / step_of(number)).round())


def test_the_block_size_does_not_change_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    metric, weight = moment(60), torch.randn(7, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = round_with_feedback(weight, 0, feedback_of(metric))
    monkeypatch.setattr("kdna_convert.stages.code.feedback_rounding._BLOCK", 7)
    assert torch.equal(round_with_feedback(weight, 0, feedback_of(metric)), whole)


def both_ways(weight: Tensor, integers: Tensor, inputs_nn: Tensor, outputs_oo: Tensor) -> float:
    gap = weight - integers
    return float((outputs_oo @ gap @ inputs_nn * gap).sum())


def test_feedback_over_rows_leaves_less_error_than_over_columns_alone() -> None:
    inputs_nn, outputs_oo = moment(60), moment(20, seed=2)
    weight = torch.randn(20, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns, rows = feedback_of(inputs_nn), feedback_of(outputs_oo)
    alone, together = round_with_feedback(weight, 0, columns), round_with_feedback(weight, 0, columns, rows)
    assert both_ways(weight, together, inputs_nn, outputs_oo) < 0.6 * both_ways(weight, alone, inputs_nn, outputs_oo)


def test_feedback_in_blocks_equals_feedback_number_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    outs, ins = 6, 11
    weight = torch.randn(outs, ins, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns, rows = feedback_of(moment(ins)), feedback_of(moment(outs, seed=2))
    left, rounded, missed = torch.zeros(3, outs, ins, dtype=torch.float64)
    ordered = weight[rows.order_n][:, columns.order_n]
    for o in range(outs):
        for i in range(ins):
            target = ordered[o, i] - rows.upper_nn[:o, o] @ missed[:o, i]
            corrected = target - left[o, :i] @ columns.upper_nn[:i, i]
            rounded[o, i] = corrected.round()
            left[o, i], missed[o, i] = corrected - rounded[o, i], target - rounded[o, i]
    expected = torch.empty_like(rounded)
    expected[rows.order_n[:, None], columns.order_n] = rounded
    for block in (1, 4, 48):
        monkeypatch.setattr("kdna_convert.stages.code.feedback_rounding._BLOCK", block)
        assert torch.equal(round_with_feedback(weight, 0, columns, rows), expected)


def test_uncorrelated_outputs_are_rounded_row_by_row() -> None:
    columns, rows = feedback_of(moment(30)), feedback_of(torch.eye(5))
    weight = torch.randn(5, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(round_with_feedback(weight, 0, columns, rows), round_with_feedback(weight, 0, columns))


def test_a_zero_moment_gives_plain_rounding() -> None:
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(round_with_feedback(weight, 0, feedback_of(torch.zeros(3, 3))), weight.round())


@pytest.fixture(scope="module")
def inputs() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return list(torch.randn(160, 3, SIZE, SIZE, generator=draw).split(40))


def tiny() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(width=16, blocks=2)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, -1, 1.5)
                nn.init.normal_(module.bias, std=0.2)
    return net.eval()


def nets_of(original: nn.Module, converted: nn.Module, inputs: list[Tensor]) -> NetPair:
    return NetPair(original, converted, survey(original, inputs[0][:1]), inputs)


def shared(net: nn.Module, inputs: list[Tensor], scheme: str) -> nn.Module:
    from kdna_convert.stages.analyze.targets import targets

    members = tuple(f"blocks.{block}.conv{one}" for block in range(2) for one in (1, 2))
    options = {"cp": {"rank": 9}, "basis": {"rank": 9}}.get(scheme, OPTIONS[scheme])
    family = Family(scheme, members if make(scheme, options).shares else members[:1], options)
    aims = targets(net, family, collect(net, survey(net, inputs[0][:1]), inputs))
    return derive(copy.deepcopy(net), family, *make(scheme, options).share(aims, seed=0, sweeps=10))


def test_balanced_rows_have_equal_costs_and_the_net_computes_the_same(
    inputs: list[Tensor],
) -> None:
    net = tiny()
    layers = survey(net, inputs[0][:1])
    before = collect(net, layers, inputs, gradients="pairs")
    sensitivity = sensitivity_of(before)
    converted = balance(nets_of(net, net, inputs), sensitivity).converted
    torch.testing.assert_close(converted(inputs[0]), net(inputs[0]), rtol=1e-4, atol=1e-4)
    behind = [layer.name for block in nets_of(net, net, inputs).blocks for layer in block.layers if layer.norm]
    after = collect(converted, layers, inputs, gradients="pairs")
    assert len(behind) >= 4
    for name in behind:
        plain, scaled = sensitivity.costs[name], sensitivity.balanced[name]
        assert float(plain.scale_o.max() / plain.scale_o.min()) > 1.2
        torch.testing.assert_close(scaled.cost_o, torch.full_like(scaled.cost_o, sensitivity.cost(name)))
        assert scaled.feedback is not None
        assert scaled.feedback.diagonal_n.pow(-2).tolist() == pytest.approx(
            [sensitivity.cost(name)] * len(scaled.cost_o)
        )
        damping = DAMPING * float(before[name].sensitivity_o.mean()) / plain.scale_o.square()
        expected = (after[name].gradient.double() + damping.diag())[scaled.feedback.order_n][:, scaled.feedback.order_n]
        factor = scaled.feedback.upper_nn * scaled.feedback.diagonal_n[:, None]
        torch.testing.assert_close(factor.T @ factor @ expected, torch.eye(len(factor)).double(), rtol=0, atol=0.02)


class Skipping(Net):
    """The stem's output is read by its normalization, and by a sum."""

    def __init__(self) -> None:
        super().__init__(blocks=0)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.fc(torch.relu(self.norm(y) + y).mean((2, 3)))


def test_a_layer_with_a_second_reader_is_not_balanced(inputs: list[Tensor]) -> None:
    torch.manual_seed(0)
    net = Skipping().eval()
    sensitivity = sensitivity_of(collect(net, survey(net, inputs[0][:1]), inputs, gradients="pairs"))
    converted = balance(nets_of(net, net, inputs), sensitivity).converted
    torch.testing.assert_close(converted.get_submodule("stem").weight, net.stem.weight, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(converted(inputs[0]), net(inputs[0]), rtol=1e-5, atol=1e-6)
    assert sensitivity.balanced["stem"] is sensitivity.costs["stem"]


ROUNDINGS = [("sequential", scheme) for scheme in (None, *OPTIONS)]


@pytest.mark.parametrize(
    ("rounding", "scheme"), [*ROUNDINGS, ("separate", None), ("separate", "cp"), ("nearest", "cp")]
)
def test_every_tensor_of_a_coded_net_is_exactly_what_decoding_gives(
    scheme: str | None, rounding: str, inputs: list[Tensor]
) -> None:
    original = tiny()
    converted = original if scheme is None else shared(original, inputs, scheme)
    nets = nets_of(original, converted, inputs)
    before = stored_state(copy.deepcopy(converted))
    sensitivity = sensitivity_of(collect(original, nets.layers, inputs, gradients="pairs"))
    coded, steps = code_net(balance(nets, sensitivity), sensitivity, Pace(0.01), rounding, lambda done, of: None)  # type: ignore[arg-type]
    state = stored_state(coded)
    decoded = unpack(pack(coded, "entropy", steps))
    assert decoded.keys() == state.keys()
    assert all(torch.equal(decoded[name], state[name]) for name in state), [
        name for name in state if not torch.equal(decoded[name], state[name])
    ]
    assert all(torch.equal(before[name], tensor) for name, tensor in stored_state(converted).items())


@pytest.mark.parametrize("scheme", ["cp", "basis", "lowrank", "separable", "tucker"])
def test_a_kernel_is_its_last_factor_times_the_rest(scheme: str, inputs: list[Tensor]) -> None:
    net = shared(tiny(), inputs, scheme)
    for derived in derived_layers(net).values():
        factor = last_factor(derived)
        assert factor is not None
        letter, rows = factor
        kernel = derived.adapter[letter].double() @ rows
        assert torch.allclose(kernel.float(), derived().flatten(1), atol=1e-5)


@pytest.mark.parametrize("scheme", [None, "cp"])
def test_sequential_rounding_is_closer_than_rounding_layers_separately(
    scheme: str | None, inputs: list[Tensor]
) -> None:
    original = tiny()
    converted = original if scheme is None else shared(original, inputs, scheme)
    nets = nets_of(original, converted, inputs)
    sensitivity, z0 = (
        sensitivity_of(collect(original, nets.layers, inputs, gradients="pairs")),
        outputs_of(original, inputs),
    )
    room = 2200
    errors = {}
    for rounding in ("separate", "sequential"):
        coded = code_to_size(nets, sensitivity, room, rounding=rounding, progress=lambda done, of: None)  # type: ignore[arg-type]
        assert 0.98 * room <= len(coded.blob) <= room  # at two kilobytes, a step of the search is 1 % or more
        errors[rounding] = divergence(outputs_of(coded.model, inputs), z0).logit_error
    assert errors["sequential"] < 0.8 * errors["separate"]


def test_more_bytes_give_a_smaller_error(inputs: list[Tensor]) -> None:
    original = tiny()
    nets = nets_of(original, original, inputs)
    sensitivity, z0 = (
        sensitivity_of(collect(original, nets.layers, inputs, gradients="pairs")),
        outputs_of(original, inputs),
    )
    errors = []
    for room in (1500, 3500):
        coded = code_to_size(nets, sensitivity, room, rounding="separate", progress=lambda done, of: None)
        errors.append(divergence(outputs_of(coded.model, inputs), z0).logit_error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_a_size_above_that_of_the_finest_steps_is_accepted(inputs: list[Tensor]) -> None:
    original = tiny()
    nets = nets_of(original, original, inputs)
    coded = code_to_size(nets, sensitivity_of({}), 1_000_000, rounding="separate", progress=lambda done, of: None)
    z0 = outputs_of(original, inputs)
    assert len(coded.blob) <= 1_000_000
    assert divergence(outputs_of(coded.model, inputs), z0).logit_error < 1e-3  # scales are met within 2.2 %


def test_a_size_below_that_of_a_zero_net_is_refused(inputs: list[Tensor]) -> None:
    original = tiny()
    nets = nets_of(original, original, inputs)
    with pytest.raises(PlanError, match="KD501"):
        code_to_size(nets, sensitivity_of({}), 200, rounding="separate", progress=lambda done, of: None)


@pytest.mark.parametrize(
    ("target", "bytes_"),
    [("1/20", 5000), ("5%", 5000), (0.05, 5000), ("0.05", 5000), ("86kB", 86000), (86000, 86000), ("1.2MB", 1200000)],
)
def test_a_target_is_a_size_or_a_share(target: str | float, bytes_: int) -> None:
    assert parse_target(target, 100_000) == bytes_


@pytest.mark.parametrize("target", ["0", "2/1", "1/0", "-1", "kB", "1/20kB", ""])
def test_an_invalid_target_is_refused(target: str) -> None:
    with pytest.raises(PlanError, match="KD506"):
        parse_target(target, 100_000)


@pytest.fixture(scope="module")
def dense(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tmp_path_factory.mktemp("recipe") / "dense.yaml"
    recipe.write_text("scheme: dense\n")
    out = tmp_path_factory.mktemp("dense") / "out"
    done = kdna("convert", NET, "-r", recipe, "--data", images, *FEW_IMAGES, "-o", out)
    assert done.exit_code == 0, done.output
    return out


def test_a_dense_recipe_converts_nothing_with_a_note(dense: Path) -> None:
    from kdna_convert.network.folder import open_folder

    conversion = open_folder(dense)
    assert conversion.plan.families == ()
    assert {layer.reason for layer in conversion.plan.layers} <= {"KD115", "KD101"}
    assert kdna("verify", dense).exit_code == 0


@pytest.mark.parametrize("source", ["dense", "folder"])
def test_the_command_meets_the_size_of_the_whole_file(
    source: str, request: pytest.FixtureRequest, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "coded"
    room = 4600
    done = kdna("code", request.getfixturevalue(source), "--target-bytes", room, "--data", images, "-o", out)
    assert done.exit_code == 0, done.output
    size = (out / "model.safetensors").stat().st_size
    assert 0.99 * room <= size <= room
    assert kdna("verify", out).exit_code == 0
    assert f"{size:,}" in kdna("eval", out, "--data", images).stdout
    assert f"{size:,}" in done.stdout


@pytest.mark.parametrize("codec", ["fp16", "int8"])
def test_codecs_of_fixed_size_need_neither_size_nor_images(codec: str, dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "coded"
    assert kdna("code", dense, "--codec", codec, "-o", out).exit_code == 0
    assert kdna("verify", out).exit_code == 0
    done = kdna("code", dense, "--codec", codec, "--target-bytes", "1kB", "-o", tmp_path / "other")
    assert done.exit_code == 2
    assert "KD501" in done.stderr


def test_a_coded_folder_is_coded_again_and_tuned(dense: Path, images: Path, tmp_path: Path) -> None:
    assert kdna("code", dense, "--codec", "int8", "-o", tmp_path / "int8").exit_code == 0
    done = kdna("code", tmp_path / "int8", "--target-bytes", "1/4", "--data", images, "-o", tmp_path / "entropy")
    assert done.exit_code == 0, done.output
    tuned = kdna("finetune", tmp_path / "int8", "--data", images, "--epochs", "1", "-o", tmp_path / "tuned")
    assert tuned.exit_code == 0, tuned.output
    assert kdna("verify", tmp_path / "tuned").exit_code == 0


def test_entropy_coding_without_images_gives_a_warning(dense: Path, tmp_path: Path) -> None:
    done = kdna("code", dense, "--target-bytes", "5kB", "-o", tmp_path / "coded")
    assert done.exit_code == 0, done.output
    assert "--data" in done.stderr


def test_entropy_without_a_size_is_refused(dense: Path, tmp_path: Path) -> None:
    done = kdna("code", dense, "-o", tmp_path / "coded")
    assert done.exit_code == 2
    assert "KD504" in done.stderr


def test_a_codec_that_does_not_exist_is_refused(dense: Path) -> None:
    with pytest.raises(PlanError, match=r"KD506.*int8"):
        kdna_convert.code(dense, codec="int3")


def test_the_same_net_and_seed_make_the_same_bytes(dense: Path, images: Path) -> None:
    blobs = {kdna_convert.code(dense, target_bytes="1/4", data=images).coded for _ in range(2)}
    assert len(blobs) == 1


def test_a_layer_whose_moment_does_not_fit_into_memory_is_rounded_too() -> None:
    convs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    net = nn.Sequential(convs, nn.ReLU(), nn.Flatten(), nn.Linear(400, 60), nn.Linear(60, 5)).eval()
    images = torch.randn(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    text = "scheme: dense\ncalibration: {memory: 100kB, images: 8, heldout: 4}\n"  # it needs 400 x 400 x 4 bytes
    recipe = parse_recipe(text)
    whole = kdna_convert.convert(net, recipe=recipe, data=images, inputs={"input_size": (3, 12, 12)})
    coded = kdna_convert.code(whole, target_bytes="1/6", data=images, model=net)
    assert coded.plan.planned.bytes <= whole.plan.original.bytes / 6
    before, after = (each[3].weight.detach() for each in (net, coded.model))
    assert 0 < float((after - before).square().mean()) < 0.1 * float(before.square().mean())
