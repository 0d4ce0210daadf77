"""The laws that every repair step obeys."""

import copy

import pytest
import torch
from support.repairs import IMAGES, pair
from support.small_nets import fitted
from torch import Tensor, nn

from kdna_convert.core.errors import CODES
from kdna_convert.core.specs import Family
from kdna_convert.network.derive import derive
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.repair import STEPS, step_of
from kdna_convert.stages.repair.net_pair import NetPair
from kdna_convert.stages.repair.repair_file import copy_state
from kdna_convert.stages.repair.run_steps import run_steps

QUICK = {"reconstruct": {"steps": 5}}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_does_not_help_is_undone_to_the_bit(name: str) -> None:
    nets, _ = pair()
    before = copy_state(nets.converted)
    values, states = iter((0.1, 0.2)), list[dict[str, Tensor]]()
    z = torch.zeros(1, 2)

    def worse(model: nn.Module) -> object:
        states.append(copy_state(model))
        return divergence((z + torch.tensor([[next(values), 0.0]]),), (z,))

    (result,) = run_steps(nets, [(name, QUICK.get(name, {}))], worse)  # type: ignore[arg-type]
    assert not result.kept
    assert any(not torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    after = nets.converted.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


@pytest.mark.parametrize("name", STEPS)
def test_a_step_keeps_the_parameters_of_a_plan(name: str) -> None:
    nets, measure = pair()
    shapes = {key: tensor.shape for key, tensor in nets.converted.state_dict().items()}
    run_steps(nets, [(name, QUICK.get(name, {}))], measure)
    assert {key: tensor.shape for key, tensor in nets.converted.state_dict().items()} == shapes


@pytest.mark.parametrize("name", STEPS)
def test_the_original_does_not_change(name: str) -> None:
    nets, _ = pair()
    before = copy_state(nets.original)
    step_of(name, QUICK.get(name, {})).run(nets, 0, lambda done, of: None)
    after = nets.original.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert not any(module.training for net in (nets.original, nets.converted) for module in net.modules())
    assert all(parameter.requires_grad for parameter in nets.converted.parameters())


@pytest.mark.parametrize("name", STEPS)
def test_progress_counts_to_the_end(name: str) -> None:
    nets, _ = pair()
    calls: list[tuple[int, int]] = []
    step_of(name, QUICK.get(name, {})).run(nets, 0, lambda done, of: calls.append((done, of)))
    of = calls[-1][1]
    assert calls == [(done, of) for done in range(1, of + 1)]


@pytest.mark.parametrize("name", STEPS)
def test_two_runs_give_the_same_net(name: str) -> None:
    states = []
    for nets, _ in (pair(), pair()):
        step_of(name, QUICK.get(name, {})).run(nets, 0, lambda done, of: None)
        states.append(copy_state(nets.converted))
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    untouched = copy_state(pair()[0].converted)
    assert any(not torch.equal(tensor, states[0][key]) for key, tensor in untouched.items())


@pytest.mark.parametrize("name", STEPS)
def test_what_is_skipped_is_a_layer_and_its_code_a_reason(name: str) -> None:
    """A net without normalizations, of a depthwise layer and a last one: every step has to skip something."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(6 * 144, 3)).eval()
    converted = copy.deepcopy(net)
    family = Family("lowrank", ("1",), {"rank": 1})
    derive(converted, family, *fitted(converted, family))
    nets = NetPair(net, converted, survey(net, IMAGES[:1]), [IMAGES[:8]])
    before = copy_state(converted)
    skipped = step_of(name, QUICK.get(name, {})).run(nets, 0, lambda done, of: None)
    assert skipped.keys() <= {"", *(layer.name for layer in nets.layers)}
    assert set(skipped.values()) <= {code for code in CODES if code.startswith("KD1")}
    after = converted.state_dict()
    assert "" not in skipped or all(torch.equal(tensor, after[key]) for key, tensor in before.items())
