"""The task that is chosen from what a net returns; what could be several is asked for."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from kdna_convert.core.errors import ModelError
from kdna_convert.tasks import choose

IMAGE = torch.zeros(1, 3, 32, 32)
DETECTED = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}


@pytest.mark.parametrize(
    ("returned", "task"),
    [
        (torch.zeros(1, 10), "classify"),
        (torch.zeros(1, 10, 1, 1), "classify"),
        ({"logits": torch.zeros(1, 10), "features": torch.zeros(1, 5)}, "classify"),
        (torch.zeros(1, 1), "regress"),
        (torch.zeros(1), "regress"),
        (torch.zeros(1, 3, 128, 128), "image"),
        (torch.zeros(1, 21, 32, 32), "segment"),
        (OrderedDict(out=torch.zeros(1, 21, 32, 32), aux=torch.zeros(1, 21, 32, 32)), "segment"),
        ([DETECTED], "detect"),
        ([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 2, 2)], "raw"),
    ],
)
def test_what_a_net_returns_says_its_task(returned: object, task: str) -> None:
    assert choose(nn.Identity(), IMAGE, returned).name == task


def test_a_net_of_timm_without_a_classifier_embeds() -> None:
    net = nn.Identity()
    net.num_classes = 0  # type: ignore[assignment]
    assert choose(net, IMAGE, torch.zeros(1, 512)).name == "embed"


@pytest.mark.parametrize(
    ("shape", "flags"),
    [
        ((1, 84, 8400), "--task sequence or --task raw"),
        ((1, 3, 32, 32), "--task image or --task segment"),
        ((1, 1, 32, 32), "--task image, --task binary or --task regress"),
        ((1, 512, 4, 4), "--task segment or --task raw"),
    ],
)
def test_what_may_be_several_tasks_is_asked_for(shape: tuple[int, ...], flags: str) -> None:
    with pytest.raises(ModelError, match="KD313") as refused:
        choose(nn.Identity(), IMAGE, torch.zeros(shape))
    assert flags in refused.value.message


@pytest.mark.parametrize("returned", [torch.zeros(()), torch.zeros(2, 5), {}, [], "text", torch.zeros(1, dtype=int)])
def test_what_has_no_row_for_every_image_is_refused(returned: object) -> None:
    with pytest.raises(ModelError, match="KD308"):
        choose(nn.Identity(), IMAGE, returned)
