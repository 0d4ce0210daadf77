"""`onnx`: a converted net as an ONNX graph for batches of any size, checked by onnxruntime before it is kept."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ...core.atomic import write_bytes
from ...core.errors import ModelError
from ...inputs.models import example_input
from ...network.derive import fold_weights
from ...network.folder import Conversion
from ...routing import routers
from .export import Export, free_path

INPUT = "images"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3  # relative to the largest logit


@dataclass(frozen=True)
class OnnxFile:
    """The ONNX file: its path, its size in bytes, and the largest difference between onnxruntime's and torch's logits,
    relative to the largest logit."""

    file: str
    bytes: int
    difference: float

    @property
    def note(self) -> str:
        return f"takes any batch size; onnxruntime's logits are within {self.difference:.0e} of torch's"

    @property
    def usage(self) -> str | None:
        return None


@dataclass(frozen=True)
class Onnx(Export):
    """One ONNX file with folded weights, for batches of any size.

    Gates on activations stay gates. A kernel that is a mixture per image becomes a weighted sum of static convolutions.
    Any other kernel per image becomes a matrix that multiplies the patches of the image.
    """

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"

    def write(self, conversion: Conversion, path: str | Path, *, force: bool = False) -> OnnxFile:
        """As Export.write. The file is written only if onnxruntime's logits equal torch's for one image and for three.

        Raises ModelError KD312 too, if a library is missing or ONNX cannot represent the net.
        """
        target = free_path(path, force)
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise ModelError("KD312", f"{', '.join(missing)} not installed: pip install 'kdna-convert[onnx]'")
        net = fold_weights(copy.deepcopy(conversion.model)).cpu().eval()
        with torch.no_grad():
            for name, router in routers(net).items():
                router.form = "static"
                weight = getattr(net.get_submodule(name), "weight", None)
                if weight is not None:
                    router.precompute(weight)
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "net.onnx"
            _write(net, example_input(conversion.data, 2), draft)
            graph = draft.read_bytes()
        difference = max(_difference(net, graph, example_input(conversion.data, batch)) for batch in (1, 3))
        if not difference <= TOLERANCE:
            raise ModelError(
                "KD312", f"onnxruntime's logits differ from torch's by {difference:.1e}; nothing was written"
            )
        write_bytes(target, graph)
        return OnnxFile(str(target), len(graph), difference)


def _write(net: nn.Module, example: torch.Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch")
    try:
        with _quietly():
            torch.onnx.export(
                net,
                (example,),
                path,
                input_names=[INPUT],
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str([error, *_causes(error)][-1]).strip().splitlines()[0]
        raise ModelError("KD312", f"the net cannot be written as ONNX: {reason}") from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _difference(net: nn.Module, graph: bytes, example: torch.Tensor) -> float:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(noise)
    output = torch.from_numpy(session.run(None, {INPUT: noise.numpy()})[0])
    return float((output - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the warnings of the exporter about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
