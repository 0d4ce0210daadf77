"""The interface of an export form. write.py does what all forms have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from ...network.folder import Conversion


@dataclass(frozen=True)
class ExportOptions:
    """What a user may ask of a form. A form honors those that its `takes` names.

    Attributes:
        opset: The version of ONNX's operators. None: the exporter's own.
        dynamic: The axes of the input that may differ from run to run: of batch, height and width.
        fp16: Whether weights and arithmetic have 16 bits. Inputs and outputs keep 32.
        normalize: Whether the file takes images in [0, 1] and normalizes them itself.
        input_names: The name of the input.
        factored: Whether converted layers run as chains of smaller layers. None: if the plan was made for a latency.
    """

    opset: int | None = None
    dynamic: tuple[str, ...] = ("batch",)
    fp16: bool = False
    normalize: bool = False
    input_names: tuple[str, ...] = ("images",)
    factored: bool | None = None


@dataclass(frozen=True)
class GraphSource:
    """What a graph is written from.

    Attributes:
        net: The net in eval mode on the CPU. Its weights and routings are folded, or run as chains. It normalizes its
            images and computes in 16 bits, if the options say so.
        example: Two images that `net` takes, or one if the batch is not dynamic.
        outputs: The names of the net's outputs.
        options: The options.
    """

    net: nn.Module
    example: Tensor
    outputs: tuple[str, ...]
    options: ExportOptions


@dataclass(frozen=True)
class ExportSource(GraphSource):
    """What a form writes.

    Attributes:
        conversion: The converted net as given. It is never changed.
        images: Images of the user's data that `net` takes, or None.
    """

    conversion: Conversion
    images: Tensor | None = None


@dataclass(frozen=True)
class Exported:
    """What was written: the fields that `kdna export --json` prints and FILE.json records.

    Attributes:
        form: The form's name.
        file: The path of the file or folder.
        bytes: Its size; of a folder, that of its files.
        difference: The largest difference of an output from torch's, relative to the largest number of that output.
            None where the outputs of two runs cannot be compared.
        checked: The inputs that were compared.
        note: What a user should know, in one line.
        usage: A line of Python that loads the file, or None.
        measures: What the form measured besides, by name.
    """

    form: str
    file: str
    bytes: int
    difference: float | None
    checked: str
    note: str
    usage: str | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


class Export(Protocol):
    """The interface of an export form, to derive from. Its laws are in tests/stages/export/test_export_laws.py.

    Attributes:
        name: The form's name on the command line.
        suffix: What follows the folder's name in the default name of the output.
        folder: Whether it writes a folder instead of a file.
        graph: Whether it writes the net's computation. Nets without a graph for other images are then refused.
        fixed: Whether it takes one image of one size only.
        calibrated: Whether it is calibrated on the user's images. Noise is then outside of its ranges and not compared.
        takes: The names of the options that it honors.
        needs: The libraries that it imports.
        extra: The extra of kdna that installs them.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    folder: ClassVar[bool] = False
    graph: ClassVar[bool] = True
    calibrated: ClassVar[bool] = False
    fixed: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    @abstractmethod
    def write(self, source: ExportSource, place: Path) -> str:
        """Write the net to a file path, or into an empty folder, and return the note for the user.

        Raises:
            ModelError: KD312 if the form cannot represent the net.
            FolderError: KD606 if it cannot hold a routing.
        """

    @abstractmethod
    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """What the written file returns for these images in the program it is for, by the names of the outputs."""

    def absent(self) -> str | None:
        """Why this machine cannot run what the form writes, or None. The outputs are then not compared."""
        return None

    def tolerance(self, options: ExportOptions) -> float:
        """The largest difference at which the file is kept."""
        return 1e-2 if options.fp16 else 1e-3

    def record(self, place: Path, facts: Mapping[str, str]) -> None:
        """Write facts into the file's own metadata, where the format has one."""
        return

    def measures(self, source: ExportSource, place: Path) -> Mapping[str, float]:
        """What this form measures besides the difference."""
        return {}

    def usage(self, path: Path) -> str | None:
        """A line of Python that loads the file."""
        return None
