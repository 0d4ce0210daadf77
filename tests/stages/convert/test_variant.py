"""The adapters of a net at the shared tensors of another."""

import pytest
import torch
from support import small_nets
from support.small_nets import MEMBERS, OPTIONS

from kdna_convert.core.linalg import Target
from kdna_convert.schemes import make
from kdna_convert.stages.analyze.targets import output_error
from kdna_convert.stages.convert.variant import fitted_adapter


def problems(seed: int) -> list[Target]:
    net, generator = small_nets.small(seed), torch.Generator().manual_seed(seed)
    found = []
    for name in MEMBERS:
        kernel = net.get_submodule(name).weight.detach().double()
        kernel_on = kernel.flatten(1)
        root_nn = torch.randn(kernel_on.shape[1], kernel_on.shape[1], generator=generator, dtype=torch.float64)
        moment_nn = root_nn @ root_nn.T / len(root_nn) + 0.1 * torch.eye(len(root_nn), dtype=torch.float64)
        found.append(Target(tuple(kernel.shape), kernel_on, kernel_on @ moment_nn, moment_nn, 1.0))
    return found


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "lowrank"])
def test_an_adapter_is_never_worse_than_its_closed_form(name: str) -> None:
    scheme = make(name, OPTIONS[name])
    shared, starts = scheme.share(problems(1), seed=0, sweeps=5)
    for start, target in zip(starts, problems(2), strict=True):
        solved = output_error(scheme, shared, scheme.reassign(shared, start, target), target)
        found = fitted_adapter(scheme, shared, start, target)
        assert output_error(scheme, shared, found, target) <= solved * (1 + 1e-9)
        assert {letter: tensor.dtype for letter, tensor in found.items()} == {
            letter: tensor.dtype for letter, tensor in start.items()
        }


@pytest.mark.parametrize("name", ["cp", "separable", "tucker"])
def test_what_has_no_closed_form_is_searched_too(name: str) -> None:
    scheme = make(name, OPTIONS[name])
    shared, starts = scheme.share(problems(1), seed=0, sweeps=5)
    target, start = problems(2)[0], starts[0]
    solved = output_error(scheme, shared, scheme.fit(shared, start, target), target)
    assert output_error(scheme, shared, fitted_adapter(scheme, shared, start, target), target) < 0.98 * solved
