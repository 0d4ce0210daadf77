"""`onnx`: a converted net as an ONNX graph for batches of any size, checked by onnxruntime before it is kept."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.atomic import write_bytes
from ...core.errors import ModelError, cause
from ...inputs.models import example_input
from ...network.derive import fold_weights
from ...network.folder import Conversion
from ...routing import routers
from .export import Export, free_path
from .graph_outputs import graph_outputs, named_tensors

INPUT = "images"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3  # relative to the largest number of an output


@dataclass(frozen=True)
class OnnxFile:
    """The ONNX file: its path, its size in bytes, and the largest difference between onnxruntime's and torch's outputs,
    relative to the largest number of the output."""

    file: str
    bytes: int
    difference: float

    @property
    def note(self) -> str:
        return f"takes any batch size; onnxruntime's outputs are within {self.difference:.0e} of torch's"

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
        """As Export.write. The file is written only if onnxruntime's outputs equal torch's for one image and for three.

        Raises ModelError KD312 too, if a library is missing or ONNX cannot represent the net.
        """
        target = free_path(path, force)
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise ModelError("KD312", f"{', '.join(missing)} not installed: pip install 'kdna-convert[onnx]'")
        net, example = fold_weights(copy.deepcopy(conversion.model)).cpu().eval(), example_input(conversion.data, 2)
        names = [*graph_outputs(net, example)]
        with torch.no_grad():
            for name, router in routers(net).items():
                router.form = "static"
                weight = getattr(net.get_submodule(name), "weight", None)
                if weight is not None:
                    router.precompute(weight)
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "net.onnx"
            _write(net, example, names, draft)
            graph = draft.read_bytes()
        difference = max(_difference(net, graph, example_input(conversion.data, batch)) for batch in (1, 3))
        if not difference <= TOLERANCE:
            raise ModelError(
                "KD312", f"onnxruntime's outputs differ from torch's by {difference:.1e}; nothing was written"
            )
        write_bytes(target, graph)
        return OnnxFile(str(target), len(graph), difference)


def _write(net: nn.Module, example: Tensor, names: Sequence[str], path: Path) -> None:
    batch = torch.export.Dim("batch")
    try:
        with _quietly():
            torch.onnx.export(
                net,
                (example,),
                path,
                input_names=[INPUT],
                output_names=names,
                dynamo=True,
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError("KD312", f"the net cannot be written as ONNX: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The first line of the innermost error that has one."""
    texts = [str(own).strip() for own in (error, *_causes(error))]
    return next(text for text in reversed([type(error).__name__, *texts]) if text).splitlines()[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _difference(net: nn.Module, graph: bytes, example: Tensor) -> float:
    """The largest difference of an output, relative to its largest number."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [each.double() for each in named_tensors(net(noise)).values()]
    try:
        returned = session.run(None, {INPUT: noise.numpy()})
    except Exception as error:  # onnxruntime's own classes
        why = f"the graph does not run on a batch of {len(noise)}: {cause(error)}"
        raise ModelError("KD312", f"{why}; nothing was written") from error
    given = [torch.from_numpy(each).double() for each in returned]
    if [each.shape for each in given] != [each.shape for each in expected]:
        return math.inf
    pairs = zip(given, expected, strict=True)
    return max(float((own - z).abs().max() / z.abs().max().clamp_min(1e-30)) for own, z in pairs)


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
