"""`torch`: eager mode, on the CPU."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .layer_form import LayerForm
from .layer_graph import LayerNet
from .runtime import Run, Runtime


class TorchRuntime(Runtime):
    """torch without a compiler."""

    name: ClassVar[str] = "torch"
    dtypes: ClassVar[tuple[str, ...]] = ("fp32",)

    def version(self) -> str:
        """As Runtime.version."""
        return torch.__version__

    def load_layer(self, form: LayerForm, threads: int, dtype: str) -> Run:
        """As Runtime.load_layer."""
        return self.load_net(LayerNet(form).eval(), torch.randn(form.input), threads)

    def load_net(self, net: nn.Module, example: Tensor, threads: int) -> Run:
        """As Runtime.load_net."""

        def run() -> object:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                with torch.inference_mode():
                    return net(example)
            finally:
                torch.set_num_threads(before)

        return run
