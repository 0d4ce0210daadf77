"""A program of torch.export: torch alone runs it, for every size that was asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.exports import clean_outputs, small_conversion
from support.small_nets import images
from torch import nn

from kdna_convert.core.errors import ModelError
from kdna_convert.stages.export import EXPORTS, ExportOptions, write_export

PT2 = EXPORTS["pt2"]


def test_a_clean_process_runs_the_program_on_any_batch(tmp_path: Path) -> None:
    made = small_conversion("se")
    exported = write_export(PT2, made, tmp_path / "net.pt2")
    script = "import torch; outputs = torch.export.load(place).module()(torch.from_numpy(images)).detach().numpy()"
    with torch.no_grad():
        torch.testing.assert_close(clean_outputs(script, Path(exported.file), images(5)), made.model(images(5)))


class Fixed(nn.Module):
    """A net for images of one size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.arange(12.0)


def test_a_net_that_has_no_program_for_the_sizes_is_refused(tmp_path: Path) -> None:
    made = replace(small_conversion(), model=Fixed().eval())
    with pytest.raises(ModelError, match=r"KD312: torch.export cannot trace the net for any batch, width: "):
        write_export(PT2, made, tmp_path / "net.pt2", ExportOptions(dynamic=("batch", "width")))
    assert not [*tmp_path.iterdir()]
    assert write_export(PT2, made, tmp_path / "net.pt2").difference == 0
