"""Which parameters a fine-tune trains."""

import pytest
from support.small_nets import convert, route, small

from kdna_convert.routing import routers
from kdna_convert.stages.finetune.trainable import trainable


@pytest.mark.parametrize(
    ("which", "count"),
    # U and b of the adapters, biases of two members and the head, and the norm; then V; then stem and head.
    [("adapters", 3 * (6 * 5 + 5 * 9) + 6 + 6 + 4 + 12), ("shared", 30 + 3 * 75 + 28), ("all", 255 + 28 + 162 + 24)],
)
def test_trainable_selects_the_parameters_of_each_part(which: str, count: int) -> None:
    net = small()
    convert(net)
    on, total = trainable(net, which)
    assert on == count == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert total == sum(p.numel() for p in net.parameters())


def test_gates_are_fine_tuned_with_the_adapters() -> None:
    net = small()
    convert(net)
    route(net, "se")
    trainable(net, "adapters")
    assert all(p.requires_grad for gate in routers(net).values() for p in gate.parameters())
