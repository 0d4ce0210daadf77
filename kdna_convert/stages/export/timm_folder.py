"""`timm`: a folder that `timm.create_model("local-dir:DIR", pretrained=True)` loads, for the nets that timm builds."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import timm
import torch
from timm.models._hub import save_config_for_hf
from torch import Tensor

from ...core.errors import ModelError, cause
from ...core.tensorfile import save_tensors
from ...inputs.models import parse_name
from ...network.derive import fold
from .export import Export, ExportOptions, ExportSource
from .graph_outputs import named_tensors


class TimmFolder(Export):
    """model.safetensors, and config.json as timm writes it: architecture, arguments, classes and input."""

    name: ClassVar[str] = "timm"
    suffix: ClassVar[str] = "-timm"
    folder: ClassVar[bool] = True
    graph: ClassVar[bool] = False

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write.

        Raises:
            ModelError: KD312 for a net that timm does not build, or cannot describe.
            FolderError: KD606 if the routing depends on the input.
        """
        name = parse_name(source.conversion.plan.model.name)
        if name.source != "timm":
            raise _refused(f"{name.text} is not a net of timm's list")
        net = fold(source.net)
        arguments = {key: value for key, value in name.kwargs.items() if key != "pretrained"}
        try:
            save_config_for_hf(net, str(place / "config.json"), model_args=arguments)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _refused(f"timm cannot describe {name.text}: {cause(error)}") from error
        state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        save_tensors(place / "model.safetensors", state, {"format": "pt"})
        return "loads into timm with its architecture, classes and input"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, in the net that timm builds from the folder. Raises ModelError KD312 if it builds none."""
        try:
            net = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
        except Exception as error:  # the class of the net may raise anything
            raise _refused(f"timm does not load the folder: {cause(error)}") from error
        with torch.no_grad():
            return named_tensors(net(images))

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance: the weights are the same."""
        return 1e-5

    def usage(self, path: Path) -> str:
        """As Export.usage."""
        return f'timm.create_model("local-dir:{path}", pretrained=True)'


def _refused(why: str) -> ModelError:
    return ModelError(
        "KD312", f"the net cannot be written as a folder of timm: {why}; pass --to merged for its weights"
    )
