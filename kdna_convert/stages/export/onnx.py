"""`onnx`: a converted net as an ONNX graph, run by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import ModelError, cause
from ...routing import routers
from .export import Export, ExportSource, GraphSource


@dataclass(frozen=True)
class Onnx(Export):
    """One ONNX file with folded weights.

    Gates on activations stay gates. A kernel that is a mixture per image becomes a weighted sum of static convolutions.
    Any other kernel per image becomes a matrix that multiplies the patches of the image.
    """

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    takes: ClassVar[frozenset[str]] = frozenset({"opset", "dynamic", "fp16", "normalize", "input_names", "factored"})
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    extra: ClassVar[str] = "onnx"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        write_graph(source, place)
        return runs_on(source)

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by onnxruntime on the CPU."""
        return run_graph(source, place, images)

    def record(self, place: Path, facts: Mapping[str, str]) -> None:
        """As Export.record."""
        record_in_graph(place, facts)


def write_graph(source: GraphSource, place: Path, *, optimize: bool = True) -> None:
    """Write the graph of the source's net, which gets static routers; without `optimize` as it is traced.

    Raises ModelError KD312 if ONNX cannot represent the net.
    """
    net = static_routers(source.net)
    options = source.options
    try:
        with _quietly():
            torch.onnx.export(
                net,
                (source.example,),
                place,
                input_names=list(options.input_names),
                output_names=source.outputs,
                opset_version=options.opset,
                dynamo=True,
                dynamic_shapes=(dynamic_axes(options.dynamic),),
                external_data=False,
                verbose=False,
                optimize=optimize,
            )
    except (torch.onnx.errors.OnnxExporterError, ValueError) as error:
        raise ModelError("KD312", f"the net cannot be written as ONNX: {_reason(error)}") from None
    _require_opset(place, options.opset)


def _require_opset(place: Path, opset: int | None) -> None:
    """Raise ModelError KD315 unless the graph has this version of operators: the exporter keeps its own if it fails."""
    import onnx

    imported = onnx.load(str(place)).opset_import
    own = next(each.version for each in imported if not each.domain)
    if opset not in (None, own):
        raise ModelError(
            "KD315", f"--opset {opset}: this graph cannot be written with it; without --opset it has {own}"
        )


def static_routers(net: nn.Module) -> nn.Module:
    """The net, whose routers run in the form that a graph for batches of any size can have from now on."""
    with torch.no_grad():
        for name, router in routers(net).items():
            router.form = "static"
            weight = getattr(net.get_submodule(name), "weight", None)
            if weight is not None:
                router.precompute(weight)
    return net


def dynamic_axes(names: tuple[str, ...]) -> dict[int, Any]:
    """The dynamic axes of an input (batch, channels, height, width), as torch.export takes them."""
    places = {"batch": 0, "height": 2, "width": 3}
    return {place: torch.export.Dim(name) for name, place in places.items() if name in names}


def run_graph(source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
    """What onnxruntime returns, by the names of the outputs. Raises ModelError KD312 if the graph does not run."""
    try:
        return Session(place, source.options.input_names[0])(images)
    except Exception as error:  # onnxruntime's own classes
        why = f"the graph does not run on an input of shape {tuple(images.shape)}: {cause(error)}"
        raise ModelError("KD312", f"{why}; nothing was written") from error


class Session:
    """A graph that onnxruntime has loaded, for the CPU, with as many threads as torch has."""

    def __init__(self, place: Path, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session: Any = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
        self.name = name

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by their names."""
        names = [each.name for each in self.session.get_outputs()]
        returned = self.session.run(None, {self.name: images.numpy()})
        return {name: torch.from_numpy(each) for name, each in zip(names, returned, strict=True)}


def record_in_graph(place: Path, facts: Mapping[str, str]) -> None:
    """Add facts to the metadata of an ONNX file."""
    import onnx

    model = onnx.load(str(place))
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, str(place))


def runs_on(source: ExportSource) -> str:
    """The note on the inputs that a graph takes."""
    free = ", ".join(source.options.dynamic)
    return f"takes any {free}" if free else "takes one image of this size"


def _reason(error: BaseException) -> str:
    """The first line of the innermost error that has one."""
    texts = [str(own).strip() for own in (error, *_causes(error))]
    return next(text for text in reversed([type(error).__name__, *texts]) if text).splitlines()[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what the exporter says about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
