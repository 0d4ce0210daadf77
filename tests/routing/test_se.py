"""The gate of KernelDNA: what it computes, with and without its norm, and what it stores."""

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.specs import Layer
from kdna_convert.routing import attach, routers
from kdna_convert.routing.se import Se

CONV = Layer("0", "Conv2d", (4, 8, 3, 3))


def gated(routing: Se) -> nn.Sequential:
    """One convolution of eight channels behind a gate away from the identity."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 4, 3))
    attach(net, [CONV], routing)
    with torch.no_grad():
        for parameter in routers(net)["0"].parameters():
            parameter.add_(torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("norm", [False, True])
def test_a_gate_is_the_formula(norm: bool) -> None:
    net, x = gated(Se(norm=norm)), torch.randn(2, 8, 5, 5)
    state = net.state_dict()

    def gate(image: Tensor) -> Tensor:
        hidden = state["0.gate.fc1.weight"] @ image.mean((1, 2))
        if norm:
            centered = hidden - hidden.mean()
            hidden = centered / (centered.square().mean() + 1e-5).sqrt()
            hidden = hidden * state["0.gate.norm.weight"] + state["0.gate.norm.bias"]
        return 2 * torch.sigmoid(state["0.gate.fc2.weight"] @ hidden.relu() + state["0.gate.fc2.bias"])

    scaled = torch.stack([image * gate(image)[:, None, None] for image in x])
    expected = nn.functional.conv2d(scaled, state["0.weight"], state["0.bias"])
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_gate_with_a_norm_trains_on_any_batch_and_keeps_images_apart(batch: int) -> None:
    net, x = gated(Se(norm=True)).train(), torch.randn(batch, 8, 5, 5)
    y = net(x)
    torch.testing.assert_close(y, torch.cat([net(image[None]) for image in x]))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(("norm", "params"), [(False, 2 * 8 * 2 + 8), (True, 2 * 8 * 2 + 8 + 2 * 2)])
def test_a_gate_stores_what_its_card_says(norm: bool, params: int) -> None:
    (router,) = Se(norm=norm).build([CONV], [None], [0])
    assert sum(p.numel() for p in router.parameters()) == params
    assert router.is_identity()


def test_a_norm_has_two_channels_at_least() -> None:
    (router,) = Se(reduction=8, norm=True).build([CONV], [None], [0])
    assert router.state_dict()["fc1.weight"].shape == (2, 8)
    with pytest.raises(RecipeError, match=r"KD203: routing se: width must be at least 2 with norm"):
        Se(width=1, norm=True)
