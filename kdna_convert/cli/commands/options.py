"""The options that several commands take, as dataclasses that `grouped` spreads out on a command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, get_annotations, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import VERBOSE

if TYPE_CHECKING:  # pydantic takes a tenth of a second, and --help needs none of it
    from ...inputs.recipe import Recipe

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
OutputFolder = Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write.")]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that `kdna convert` wrote.")]
Text = str | None
Share = float | None
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
MODEL_HELP = (
    "resnet18 or timm:NAME, torchvision:NAME, hf-hub:REPO, local-dir:PATH, path/to/file.py:factory, "
    "package.module:factory(kw=1), or a converted folder."
)
DATA_HELP = (
    "Folder of images (one folder per class, or flat and unlabelled), tar, or timm dataset, as hfds/owner/name:train."
)


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type become that class's fields on the command line.

    typer reads a command's signature, so the wrapper carries one in which every group is spread out.
    """
    own = signature(function, eval_str=True).parameters.values()
    groups: dict[str, Any] = {each.name: each.annotation for each in own if is_dataclass(each.annotation)}
    nested = [_parameters(groups[each.name]) if each.name in groups else [each] for each in own]
    spread = [each.replace(kind=Parameter.KEYWORD_ONLY) for parameters in nested for each in parameters]

    @wraps(function)
    def command(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        function(**values)

    command.__signature__ = Signature(spread)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in spread}
    return command


def _parameters(group: Any) -> list[Parameter]:
    """What the dataclass is made from, its annotations evaluated."""
    hints = {name: hint for base in group.__mro__ for name, hint in get_annotations(base, eval_str=True).items()}
    return [each.replace(annotation=hints[each.name]) for each in signature(group).parameters.values()]


def numbers(text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` as floats."""
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.485,0.456,0.406") from None


def dimensions(text: str) -> tuple[int, ...]:
    """`3,224,224`, or `224` for three channels of that height and width."""
    sizes = tuple(int(number) for number in numbers(text))
    return (3, *sizes, *sizes) if len(sizes) == 1 else sizes


def _remember(ctx: typer.Context, verbose: bool) -> bool:
    ctx.meta[VERBOSE] = verbose
    return verbose


_model, _data, _recipe, _budget, _run = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("Model", "Data", "Recipe", "Budget", "Run")
)


@dataclass(frozen=True)
class Net:
    """The net, and the size of its input. What is left out is the net's own."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
    checkpoint: Annotated[Text, _model(help="Weights: safetensors, or .pth/.pt/.th; runs no code.")] = None
    input_size: Annotated[Text, _model(help="Input as 224 or 3,224,224.")] = None

    @property
    def inputs(self) -> dict[str, Any]:
        """The fields of DataConfig that go over the net's own, None where they do not."""
        return {"input_size": self.input_size and dimensions(self.input_size)}

    @property
    def arguments(self) -> dict[str, Any]:
        inputs = {name: value for name, value in self.inputs.items() if value is not None}
        return {"model": self.model, "checkpoint": self.checkpoint, "inputs": inputs}


@dataclass(frozen=True)
class Source(Net):
    """The net, and how images become its inputs."""

    mean: Annotated[Text, _model(help="Mean of each channel, as 0.5,0.5,0.5.")] = None
    std: Annotated[Text, _model(help="Standard deviation of each channel, as 0.5,0.5,0.5.")] = None
    crop_pct: Annotated[Share, _model(min=0.01, max=1.0, help="Share of the image that the crop keeps.")] = None
    interpolation: Annotated[Interpolation | None, _model(help="How images are resized.")] = None

    @property
    def inputs(self) -> dict[str, Any]:
        own = {"mean": self.mean and numbers(self.mean), "std": self.std and numbers(self.std)}
        return {**super().inputs, **own, "crop_pct": self.crop_pct, "interpolation": self.interpolation}


@dataclass(frozen=True)
class Images:
    """The images, and what their classes are called."""

    data: Annotated[Text, _data("--data", "-d", help=DATA_HELP)] = None
    class_map: Annotated[Text, _data(help="File of class names, one a line, in the net's order.")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"data": self.data, "class_map": self.class_map}

    @property
    def required(self) -> dict[str, Any]:
        if self.data is None:
            raise typer.BadParameter(
                "needed here: a folder of images, a tar file or a timm dataset", param_hint="--data"
            )
        return self.arguments


@dataclass(frozen=True)
class Calibration:
    """What becomes of which layer, and what is measured for it."""

    recipe_name: Annotated[str, _recipe("--recipe", "-r", help="Recipe file, or a name of `kdna recipe ls`.")] = (
        "balanced"
    )
    overrides: Annotated[list[str] | None, _recipe("--set", metavar="KEY=VALUE", help="Override a recipe key.")] = None
    scheme: Annotated[Text, _recipe(help="The recipe's scheme; dense shares nothing.")] = None
    codec: Annotated[
        Text, _recipe(help="Store the tensors by this codec; --target-bytes is then the coded file's.")
    ] = None
    seed: Annotated[int | None, _recipe(min=0, help="Seed of every draw. Default: the recipe's.")] = None
    data_free: Annotated[bool, _data("--data-free", help="Fit without images, at a cost in accuracy.")] = False
    moments: Annotated[Text, _data(help="File of moments: read where it exists, else written.")] = None
    moments_memory: Annotated[Text, _data(help="Memory for moments, as 4GiB. Default: the recipe's.")] = None

    @property
    def recipe(self) -> Recipe:
        """The recipe with everything that was said over it."""
        from ...inputs.recipe import load_recipe

        said = {
            "seed": self.seed,
            "calibration.memory": self.moments_memory,
            "scheme": self.scheme,
            "codec": self.codec,
        }
        if self.scheme == "dense":  # a recipe's budget and repair are those of sharing
            said |= {"budget": "null", "repair": "[]"}
        over = [f"{key}={value}" for key, value in said.items() if value is not None]
        return load_recipe(self.recipe_name, [*(self.overrides or []), *over])

    @property
    def arguments(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "data_free": self.data_free, "moments": self.moments}

    def notes(self, images: Images) -> list[str]:
        """The price of fitting without images, where there are none."""
        from ...api.job import DATA_FREE_NOTE

        return [DATA_FREE_NOTE] if images.data is None or self.data_free else []


@dataclass(frozen=True)
class Size:
    """How large the result may be, against the original: at most one of the three."""

    target_params: Annotated[Share, _budget(min=0.0, max=1.0, help="Share of the parameters to keep.")] = None
    target_bytes: Annotated[Text, _budget(help="Size of the file, header included, as 1.2MB.")] = None
    target_macs: Annotated[Share, _budget(min=0.0, max=1.0, help="Share of the MACs to keep, run factored.")] = None

    @property
    def budget(self) -> dict[str, Any]:
        """What was said, None where nothing was."""
        names = [field.name for field in fields(self) if field.name != "database"]
        given = {name: getattr(self, name) for name in names}
        flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        if len(flags) > 1:
            raise typer.BadParameter("give one of them", param_hint=" and ".join(flags))
        return given


@dataclass(frozen=True)
class Goal(Size):
    """The same, or a drop instead; without any, the recipe's budget."""

    max_drop: Annotated[
        float | None, _budget(min=0.0, help="Instead: the fewest parameters that lose at most so many points.")
    ] = None
    database: Annotated[Text, _budget(help="File of predicted errors: read where it exists, else written.")] = None

    def refuse(self, flag: str, besides: str = "") -> None:
        """Raises a usage error when anything is said here, `besides` one, that the other flag settles already."""
        said = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        given = [f"--{name.replace('_', '-')}" for name in said if name != besides]
        if given:
            raise typer.BadParameter(f"{flag} settles that already", param_hint=", ".join(given))

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.budget, "database": self.database}


@dataclass(frozen=True)
class Output:
    """How it says what it found."""

    json: Annotated[bool, _run("--json", help="Print the result as JSON.")] = False
    quiet: Annotated[bool, _run("--quiet", "-q", help="No progress and no advice on stderr.")] = False
    verbose: Annotated[bool, _run("--verbose", "-v", callback=_remember, help="Show where an error came from.")] = False


@dataclass(frozen=True)
class Run(Output):
    """The same, and where it computes."""

    device: Annotated[str, _run(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise typer.BadParameter(f"{self.device!r} is none of auto, cpu, cuda, cuda:1, mps", param_hint="--device")
        return {"device": self.device}
