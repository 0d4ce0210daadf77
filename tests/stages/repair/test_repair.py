"""Repair: a step is kept only if it helps, and an interrupted repair resumes."""

import copy
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.repairs import BANK, FAMILY, IMAGES, pair
from support.small_nets import fitted
from torch import Tensor, nn

from kdna_convert.core.measurements import Divergence
from kdna_convert.core.specs import Family
from kdna_convert.network.derive import derive, derived_layers
from kdna_convert.routing import ROUTINGS, attach, routers
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.repair import STEPS
from kdna_convert.stages.repair.net_pair import NetPair
from kdna_convert.stages.repair.repair_file import RepairFile, RepairState, copy_state
from kdna_convert.stages.repair.run_steps import Measure, run_steps


def test_a_refit_lowers_the_divergence() -> None:
    nets, measure = pair()
    (result,) = run_steps(nets, [("refit", {})], measure)
    assert result.kept
    assert result.after is not None
    assert result.after.kl < 0.7 * result.before.kl
    assert measure(nets.converted) == result.after


@pytest.mark.parametrize("name", [name for name in ROUTINGS if name != "dymn"])  # which takes no 3x3 layer
def test_a_routed_net_is_refitted_as_one_without_its_routing(name: str) -> None:
    plain, measure = pair()
    routed, _ = pair()
    routing, convs = ROUTINGS[name](), [layer for layer in routed.layers if layer.name in FAMILY.members]
    for group in routing.groups(convs, routed.converted):
        attach(routed.converted, group, routing)
    assert set(routers(routed.converted)) == set(FAMILY.members)
    for nets in (plain, routed):
        assert run_steps(nets, [("refit", {})], measure)[0].kept
    for name in FAMILY.members:
        ours, theirs = (net.get_submodule(name).weight for net in (routed.converted, plain.converted))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_refit_with_new_codes_of_a_codebook_leaves_less_than_one_with_the_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refitted() -> tuple[list[Tensor], float]:
        nets, measure = pair(BANK)
        (result,) = run_steps(nets, [("refit", {})], measure)
        assert result.kept
        assert result.after is not None
        return [derived.adapter["K"] for derived in derived_layers(nets.converted).values()], result.after.kl

    first = [derived.adapter["K"] for derived in derived_layers(pair(BANK)[0].converted).values()]
    new, error = refitted()
    monkeypatch.setattr(SCHEMES["codebook"], "reassign", SCHEMES["codebook"].fit)
    old, error_of_old = refitted()
    assert all(torch.equal(one, other) for one, other in zip(old, first, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(new, first, strict=True))
    assert error < 0.9 * error_of_old


def test_a_step_is_kept_by_its_judge_and_reported_by_its_measure() -> None:
    nets, measure = pair()
    kls = iter((2.0, 1.0, 3.0))

    def judge(net: nn.Module) -> Divergence:
        return replace(measure(net), kl=next(kls))

    first, second = run_steps(nets, [("refit", {}), ("correct", {})], measure, judge=judge)
    assert (first.kept, first.judged) == (True, (2.0, 1.0))
    assert (second.kept, second.judged) == (False, (1.0, 3.0))
    assert first.after == second.before == measure(nets.converted)


def test_a_reconstruction_lowers_the_divergence_and_leaves_shared_tensors_alone() -> None:
    nets, measure = pair()
    shared = derived_layers(nets.converted)["blocks.0.conv1"].shared["V"].detach().clone()
    (result,) = run_steps(nets, [("reconstruct", {"steps": 40})], measure)
    assert result.kept
    assert result.after is not None
    assert result.after.kl < 0.9 * result.before.kl
    assert torch.equal(derived_layers(nets.converted)["blocks.0.conv1"].shared["V"], shared)
    assert all(parameter.requires_grad for parameter in nets.converted.parameters())


def test_correcting_gives_every_normalization_the_mean_of_the_original() -> None:
    nets, _ = pair()
    STEPS["correct"](variance=1.0).run(nets, 0, lambda done, of: None)  # type: ignore[call-arg]
    outputs: list[Tensor] = []
    for net in (nets.original, nets.converted):
        handle = net.blocks[1].bn2.register_forward_hook(lambda m, a, y: outputs.append(y.mean((0, 2, 3))))
        net(torch.cat(nets.batches))
        handle.remove()
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-3, rtol=1e-3)


def test_a_net_without_normalization_gives_a_reason_code() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).eval()
    nets = NetPair(net, copy.deepcopy(net), survey(net, IMAGES[:1]), [IMAGES[:8]])
    for name in ("correct", "reestimate"):
        assert STEPS[name]().run(nets, 0, lambda done, of: None) == {"": "KD124"}


def test_too_few_images_do_not_estimate_statistics() -> None:
    nets, _ = pair()
    few = NetPair(nets.original, nets.converted, nets.layers, [IMAGES[:32]])
    assert STEPS["reestimate"]().run(few, 0, lambda done, of: None) == {"": "KD126"}


def test_a_depthwise_layer_is_skipped_with_a_reason_code() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(6 * 144, 3)).eval()
    converted = copy.deepcopy(net)
    family = Family("lowrank", ("1",), {"rank": 1})
    derive(converted, family, *fitted(converted, family))
    nets = NetPair(net, converted, survey(net, IMAGES[:1]), [IMAGES[:8]])
    assert STEPS["refit"]().run(nets, 0, lambda done, of: None) == {"1": "KD121"}


@pytest.mark.parametrize("value", [0.0, 3.0], ids=["zero", "constant"])
@pytest.mark.parametrize("family", [FAMILY, replace(FAMILY, members=FAMILY.members[:3])], ids=["derived", "dense"])
def test_a_layer_whose_input_is_constant_keeps_its_kernel_with_a_reason_code(value: float, family: Family) -> None:
    nets, _ = pair(family)
    for net in (nets.original, nets.converted):
        norm = net.get_submodule("blocks.1.bn1")
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, value)
        conv = net.get_submodule("blocks.1.conv2")
        conv.padding_mode, conv._reversed_padding_repeated_twice = "replicate", [1, 1, 1, 1]
    before = nets.converted.get_submodule("blocks.1.conv2").weight.detach().clone()
    assert STEPS["refit"]().run(nets, 0, lambda *_: None) == {"blocks.1.conv2": "KD128"}
    assert torch.equal(nets.converted.get_submodule("blocks.1.conv2").weight, before)


class Clamped(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.clamp(-0.01, 0.01), self.bias)


def test_a_refit_leaves_a_dense_layer_that_changes_or_shares_its_weight() -> None:
    nets, _ = pair(replace(FAMILY, members=FAMILY.members[:1]))
    for net in (nets.original, nets.converted):
        net.get_submodule("blocks.0.conv2").__class__ = Clamped
        net.get_submodule("blocks.1.conv2").weight = net.get_parameter("blocks.1.conv1.weight")
    nets = replace(nets, layers=survey(nets.original, IMAGES[:1]))
    reasons = {layer.name: layer.reason for layer in nets.layers if layer.reason}
    assert reasons == {"blocks.0.conv2": "KD112", "blocks.1.conv1": "KD106", "blocks.1.conv2": "KD106"}
    weights = {name: nets.converted.get_parameter(f"{name}.weight") for name in (*reasons, "fc")}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    STEPS["refit"]().run(nets, 0, lambda *_: None)
    assert {name for name, weight in weights.items() if torch.equal(weight, before[name])} == {*reasons}


def test_memory_bounds_how_many_images_are_kept() -> None:
    nets, _ = pair(memory=4 * 3 * 16 * 16 * 100)
    assert sum(map(len, nets.batches)) == 100


def interrupted(nets: NetPair, measure: Measure, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that is killed after its second block of the second step."""
    monkeypatch.setattr("kdna_convert.stages.repair.repair_file.EVERY", 0.0)
    stages: list[str] = []

    def stop(doing: str, done: int, of: int) -> None:
        stages.append(doing)
        if stages.count("repair: reconstruct") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps(nets, STEPS_RUN, measure, file=RepairFile(path, "mark"), progress=stop)


STEPS_RUN = [("refit", {}), ("reconstruct", {"steps": 10})]


def test_an_interrupted_repair_resumes_at_its_last_block_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets, measure = pair()
    whole = run_steps(nets, STEPS_RUN, measure)
    expected = copy_state(nets.converted)

    stopped, measure = pair()
    interrupted(stopped, measure, tmp_path / "repair", monkeypatch)
    again, measure = pair()
    file = RepairFile(tmp_path / "repair", "mark")
    state = file.read(again.converted)
    assert state is not None
    assert (state.step, state.block) == (1, 2)
    done = run_steps(again, STEPS_RUN, measure, file=file, state=state)
    assert [(one.step, one.kept, one.before) for one in done] == [(one.step, one.kept, one.before) for one in whole]
    after = again.converted.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in expected.items())


def test_a_repair_file_with_another_mark_or_damaged_is_ignored(tmp_path: Path) -> None:
    nets, _ = pair()
    path = tmp_path / "repair"
    RepairFile(path, "one").write(nets.converted, RepairState(before=copy_state(nets.converted)), now=True)
    assert RepairFile(path, "another").read(nets.converted) is None
    path.write_bytes(path.read_bytes()[:100])
    assert RepairFile(path, "one").read(nets.converted) is None


def test_a_costly_block_is_trained_with_smaller_batches_then_for_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    nets, _ = pair()
    batches: list[tuple[str, int]] = []
    for name in ("blocks.0", "blocks.1"):
        nets.converted.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: batches.append((name, len(args[0]))) if torch.is_grad_enabled() else None
        )
    macs = 2 * 12 * 12 * 9 * 8 * 8

    def trained(images: int) -> list[int]:
        batches.clear()
        monkeypatch.setattr("kdna_convert.stages.repair.reconstruct.WORK", macs * images)
        STEPS["reconstruct"](steps=10, batch=16).run(nets, 0, lambda *_: None)  # type: ignore[call-arg]
        return [size for name, size in batches if name == "blocks.1"]

    assert trained(1000) == [16] * 10
    assert trained(120) == [12] * 10
    assert trained(40) == [8] * 5


def test_a_net_whose_blocks_are_too_costly_is_not_walked_nor_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nets, measure = pair()
    monkeypatch.setattr("kdna_convert.stages.repair.reconstruct.WORK", 1)
    monkeypatch.setattr("kdna_convert.stages.repair.net_pair.walk", None)
    (result,) = run_steps(nets, [("reconstruct", {})], measure)
    assert not result.kept
    assert result.left_out == dict.fromkeys(FAMILY.members, "KD146")
    assert result.after == result.before


def test_a_step_that_changes_nothing_is_not_measured_again() -> None:
    nets, measure = pair()
    measured: list[nn.Module] = []

    def counted(net: nn.Module) -> Divergence:
        measured.append(net)
        return measure(net)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STEPS["correct"], "run", lambda *_: {})
        (result,) = run_steps(nets, [("correct", {})], counted)
    assert (result.kept, len(measured)) == (False, 1)
    assert result.after == result.before


def test_a_repair_that_runs_out_of_time_keeps_what_it_has_done_and_names_the_rest() -> None:
    nets, measure = pair()
    clock = iter([0.0, 0.0, 0.0, 2.0])
    nets.deadline, now = 1.0, time.monotonic
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdna_convert.stages.repair.net_pair.time.monotonic", lambda: next(clock, now()))
        (result,) = run_steps(nets, [("refit", {})], measure)
    late = {"blocks.1.conv1": "KD145", "blocks.1.conv2": "KD145", "fc": "KD145"}
    assert result.kept
    assert result.left_out == late
    untouched = pair()[0].converted
    for layer in ("blocks.0.conv1", *late):
        same = torch.equal(nets.converted.get_submodule(layer).weight, untouched.get_submodule(layer).weight)
        assert same == (layer in late)


def test_layers_that_read_other_inputs_in_the_two_nets_are_left_as_they_are() -> None:
    nets, _ = pair(apart=("blocks.1",))
    before = copy_state(nets.converted)
    skipped = STEPS["refit"]().run(nets, 0, lambda done, of: None)
    assert skipped == dict.fromkeys(("blocks.1.conv1", "blocks.1.conv2"), "KD147")
    after = copy_state(nets.converted)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any("blocks.1.conv" in name for name in changed)
