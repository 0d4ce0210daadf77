"""BOARD: what a device has and how fast it computes, as YAML, every figure with its source.

    name: my-board
    summary: My board, Cortex-M4, 80 MHz
    estimate: true                      # always: a profile predicts, and only the board measures
    clock: {value: 80e6, source: "data sheet"}          # Hz
    ram: {value: 128KiB, source: "data sheet"}          # without it, no limit of memory
    flash: {value: 1MiB, source: "data sheet"}          # without it, no limit of flash
    code: {value: 60KiB, source: "a build"}             # flash of the runtime; default: 0
    work: {value: 8KiB, source: "a build"}              # RAM of the runtime beside the activations; default: 0
    int8:                               # cycles per multiply-add, by kind of layer; also fp32. One of the two is enough
      convolution: {value: 1.6, source: "measured"}     # several taps, several input channels
      depthwise: {value: 6, source: "measured"}         # one input channel
      pointwise: {value: 1.4, source: "measured"}       # one tap
      linear: {value: 2.4, source: "measured"}
      layer: {value: 5000, source: "measured"}          # cycles of a layer beside its multiply-adds; default: 0

The bundled profiles are in the folder profiles/. Importing this file does not import torch.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import PlanError, reason_of
from ..core.plugin_names import ArithmeticName
from .bundled_files import bundled_files
from .recipe import yamlfile
from .recipe.fields import Size
from .recipe.yamlfile import MarkedError, Places

LayerKind = Literal["convolution", "depthwise", "pointwise", "linear"]
# Bytes of a weight or an activation.
BYTES_PER_NUMBER: dict[ArithmeticName, int] = {"int8": 1, "fp32": 4}

_Source = Annotated[str, Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figure(_Frozen):
    """A positive number and where it comes from."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    source: _Source


class ByteFigure(_Frozen):
    """A size in bytes and where it comes from."""

    value: Size
    source: _Source


class CycleFigures(_Frozen):
    """Cycles per multiply-add by kind of layer, and cycles of a layer beside them."""

    convolution: Figure
    depthwise: Figure
    pointwise: Figure
    linear: Figure
    layer: Figure | None = None

    def per_mac(self, kind: LayerKind) -> float:
        """Cycles of one multiply-add."""
        figure: Figure = getattr(self, kind)
        return figure.value

    @property
    def per_layer(self) -> float:
        """Cycles of a layer beside its multiply-adds."""
        return 0.0 if self.layer is None else self.layer.value


class Board(_Frozen):
    """A device profile: clock in Hz, sizes in bytes, and cycles in each arithmetic that it has figures for."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    summary: _Source
    estimate: Literal[True]
    clock: Figure
    ram: ByteFigure | None = None
    flash: ByteFigure | None = None
    code: ByteFigure | None = None
    work: ByteFigure | None = None
    int8: CycleFigures | None = None
    fp32: CycleFigures | None = None

    @property
    def arithmetics(self) -> tuple[ArithmeticName, ...]:
        """Those that the profile has figures for."""
        return tuple(name for name in BYTES_PER_NUMBER if getattr(self, name) is not None)

    def cycles(self, arithmetic: ArithmeticName) -> CycleFigures:
        """The figures of an arithmetic. Raises PlanError KD511 if the profile has none."""
        figures: CycleFigures | None = getattr(self, arithmetic)
        if figures is None:
            has = " and ".join(self.arithmetics)
            raise PlanError("KD511", f"the profile of {self.name} has no cycles of {arithmetic}; it has those of {has}")
        return figures


def bundled_boards() -> dict[str, Path]:
    """The bundled device profiles by name."""
    return bundled_files("profiles")


def load_board(source: str | Path) -> Board:
    """Read a device profile.

    Args:
        source: A YAML file, or the name of a bundled profile.

    Raises:
        PlanError: KD511 for a file that cannot be read or is invalid, with its line, or an unknown name.
    """
    path = Path(source)
    if not path.is_file():
        boards = bundled_boards()
        if str(source) not in boards:
            raise _not_found(str(source), list(boards))
        path = boards[str(source)]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError("KD511", f"{path} cannot be read: {error}") from None
    return parse_board(text, name=path.name)


def parse_board(text: str, *, name: str = "profile") -> Board:
    """Read a device profile from YAML text. Its error messages begin with `name`. Raises as load_board does."""
    try:
        value, lines = yamlfile.parse(text)
    except MarkedError as error:
        raise PlanError("KD511", f"{name} line {error.line}: {error}") from None
    places = Places(name, lines)
    try:
        board = Board.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PlanError("KD511", f"{places(first['loc'])}: {reason_of(first)}") from None
    if not board.arithmetics:
        raise PlanError("KD511", f"{name}: has neither int8 nor fp32; give the cycles of one of them")
    return board


def _not_found(source: str, names: list[str]) -> PlanError:
    if Path(source).name != source or Path(source).suffix in (".yaml", ".yml"):
        return PlanError("KD511", f"there is no device profile {source}")
    close = get_close_matches(source, names, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return PlanError("KD511", f"no bundled board {source!r}{meant}; there are {', '.join(names)}")
