"""The options that several commands take, as dataclasses; grouped.py makes options of their fields."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.plugin_names import CropName, InterpolationName, TaskName
from .completion import codec_names, recipe_names, scheme_names
from .console import VERBOSE
from .option_values import Text, checked, device, dimensions, numbers

if TYPE_CHECKING:  # imports pydantic, which --help does not need
    from ...inputs.recipe import Recipe

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
HtmlFlag = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the result as a page in HTML, too.")
]
OutputFolder = Annotated[Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write.")]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that `kdna convert` or `kdna run` wrote.")]
Share = float | None
MODEL_HELP = (
    "resnet18 or timm:NAME, torchvision:NAME, hf-hub:REPO, local-dir:PATH, path/to/file.py:factory, "
    "package.module:factory(kw=1), kdna:digits (bundled) or a converted folder."
)
DATA_HELP = (
    "Folder of images or .wav files (one folder per class, or flat without labels), .tar file of images, timm dataset "
    "(hfds/OWNER/NAME:train) or kdna:digits/train (bundled)."
)
RECIPE_HELP = "Recipe file or bundled name; see `kdna recipe ls`."
PARAMS_HELP = "Share of the parameters to keep: 0.5, 50% or 1/2."
SET_HELP = "Override a recipe key. Repeatable."
ROUNDED_ON_NOISE = "no images: rounding uses synthetic noise, layer by layer, which costs accuracy; pass --data"
MOMENTS_HELP = "Second moments of the inputs: read if the file exists, else written. Or a folder of such files."
DATABASE_HELP = "Predicted errors: read if the file exists, else written. Or a folder of such files."
BYTES_HELP = "Size of the file with its header: 1.2MB, or a share of the original's as 5% or 1/20."


def _remember(ctx: typer.Context, verbose: bool) -> bool:
    ctx.meta[VERBOSE] = verbose
    return verbose


def image_notes(recipe: Recipe, has_images: bool) -> list[str]:
    """What a conversion by this recipe loses without images."""
    from ...api.job import DATA_FREE_NOTE

    fit = [DATA_FREE_NOTE] if recipe.fits else []
    return [] if has_images else [*fit, *([ROUNDED_ON_NOISE] if recipe.codec == "entropy" else [])]


TASK_HELP = (
    "What the outputs mean: classify, binary, regress, embed, image, segment, detect, sequence or raw. Default: chosen "
    "from what the net returns."
)
METRIC = "A function file.py:name(net, batches) that returns a number"
METRIC_HELP = f"{METRIC}, higher for better nets. It is measured too."
SHARE = checked("parse_share")
SIZE = checked("parse_target", 1)
_model, _data, _recipe, _run = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("Model", "Data", "Recipe", "Run")
)


@dataclass(frozen=True)
class NetFlags:
    """The net and the size of its input. Options that are not given keep the net's own values."""

    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
    checkpoint: Annotated[
        Text, _model(metavar="FILE", help="Weights: .safetensors, .pth, .pt or .th. Pickled code is never run.")
    ] = None
    checkpoint_key: Annotated[
        Text, _model(metavar="KEY", help="Key of the weights in the checkpoint. Default: the usual ones, EMA first.")
    ] = None
    checkpoint_prefix: Annotated[
        Text, _model(metavar="PREFIX", help="Prefix of the net's weights in the checkpoint: model, net or teacher.")
    ] = None
    input_size: Annotated[
        Text, _model(metavar="SIZE", help="Input size: 224, 3,224,224 or, of sounds, 1,16000 samples.")
    ] = None
    sample_rate: Annotated[
        int | None, _model(metavar="HZ", help="Sample rate of sounds, if the net states none: 16000.")
    ] = None

    @property
    def inputs(self) -> dict[str, Any]:
        """The fields of DataConfig that replace the net's own; None keeps those."""
        size = self.input_size and dimensions(self.input_size)
        return {"input_size": size, "sample_rate": self.sample_rate}

    @property
    def hints(self) -> list[str]:
        """A note that the weights are those of the user's factory, if no checkpoint is given."""
        from ...inputs.models import factory_note

        note = factory_note(self.model, self.checkpoint)
        return [] if note is None else [note]

    @property
    def arguments(self) -> dict[str, Any]:
        inputs = {name: value for name, value in self.inputs.items() if value is not None}
        chosen = {"checkpoint_key": self.checkpoint_key, "checkpoint_prefix": self.checkpoint_prefix}
        return {"model": self.model, "checkpoint": self.checkpoint, **chosen, "inputs": inputs}


@dataclass(frozen=True)
class OriginalFlags:
    """The weights of a folder's original, if they are not where they were."""

    checkpoint: Annotated[
        Text, _model(metavar="FILE", help="The original's weights, if they are not where they were.")
    ] = None
    checkpoint_key: Annotated[
        Text, _model(metavar="KEY", help="Key of the weights in the checkpoint. Default: the usual ones, EMA first.")
    ] = None
    checkpoint_prefix: Annotated[
        Text, _model(metavar="PREFIX", help="Prefix of the net's weights in the checkpoint: model, net or teacher.")
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class SourceFlags(NetFlags):
    """The net, and how an image becomes its input."""

    mean: Annotated[Text, _model(metavar="LIST", help="Mean per channel: 0.5,0.5,0.5.")] = None
    std: Annotated[Text, _model(metavar="LIST", help="Standard deviation per channel: 0.5,0.5,0.5.")] = None
    crop_pct: Annotated[
        Share, _model(metavar="X", min=0.01, max=1.0, help="Share of the image that the crop keeps, 0.01 to 1.")
    ] = None
    crop_mode: Annotated[
        CropName | None,
        _model(
            "--crop",
            metavar="MODE",
            help="Part of an image: center (after resizing), middle or random (at full size), squash or border.",
        ),
    ] = None
    interpolation: Annotated[
        InterpolationName | None, _model(metavar="METHOD", help="Resize by nearest, bilinear, bicubic or lanczos.")
    ] = None

    @property
    def inputs(self) -> dict[str, Any]:
        own: dict[str, Any] = {"mean": self.mean and numbers(self.mean), "std": self.std and numbers(self.std)}
        return {
            **super().inputs,
            **own,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
            "interpolation": self.interpolation,
        }


@dataclass(frozen=True)
class ImagesFlags:
    """The images and their class names."""

    data: Annotated[Text, _data("--data", "-d", metavar="DATA", help=DATA_HELP)] = None
    class_map: Annotated[
        Text, _data(metavar="FILE", help="Class names, one per line, in the order of the outputs.")
    ] = None
    task: Annotated[TaskName | None, _data(metavar="NAME", help=TASK_HELP)] = None
    outputs: Annotated[
        Text,
        _data(metavar="FUNCTION", help="A function file.py:name(outputs) that picks what to compare."),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"data": self.data, "class_map": self.class_map, "task": self.task, "outputs": self.outputs}

    @property
    def required(self) -> dict[str, Any]:
        if self.data is None:
            raise typer.BadParameter(
                "required here: a folder of images, a .tar file or a timm dataset", param_hint="--data"
            )
        return self.arguments


@dataclass(frozen=True)
class TrustFlags:
    """Whether a folder may run code."""

    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the code that the folder names. See `kdna trust`.")
    ] = False

    @property
    def arguments(self) -> dict[str, Any]:
        return {"trust_code": self.trust_code}


@dataclass(frozen=True)
class CalibrationFlags:
    """The recipe, and how it is calibrated."""

    recipe_name: Annotated[
        str, _recipe("--recipe", "-r", metavar="RECIPE", help=RECIPE_HELP, autocompletion=recipe_names)
    ] = "balanced"
    overrides: Annotated[list[str] | None, _recipe("--set", metavar="KEY=VALUE", help=SET_HELP)] = None
    scheme: Annotated[
        Text,
        _recipe(
            metavar="NAME",
            autocompletion=scheme_names,
            help="Replace the recipe's scheme; see `kdna ls schemes`. dense: no sharing.",
        ),
    ] = None
    seed: Annotated[int | None, _recipe(metavar="N", min=0, help="Random seed. Default: the recipe's.")] = None
    data_free: Annotated[bool, _data("--data-free", help="Fit without images. Costs accuracy.")] = False
    moments: Annotated[Text, _data(metavar="FILE", help=MOMENTS_HELP)] = None
    moments_memory: Annotated[
        Text,
        _data(
            metavar="SIZE",
            help="Memory limit for the moments: 4GiB. Default: the recipe's.",
            callback=checked("parse_size"),
        ),
    ] = None
    calibration_images: Annotated[
        int | None, _data(metavar="N", min=1, help="Number of images to calibrate on. Default: the recipe's.")
    ] = None

    @property
    def keys(self) -> dict[str, Any]:
        """The recipe's keys that options set, None where they do not."""
        keys = {
            "seed": self.seed,
            "calibration.memory": self.moments_memory,
            "calibration.images": self.calibration_images,
            "scheme": self.scheme,
        }
        if self.scheme == "dense":  # budget and repair apply to sharing only
            keys |= {"budget": "null", "repair": "[]"}
        return keys

    @property
    def changes(self) -> list[str]:
        """The overrides of the command line, as `--set` takes them."""
        return [*(self.overrides or []), *(f"{key}={value}" for key, value in self.keys.items() if value is not None)]

    @property
    def recipe(self) -> Recipe:
        """The recipe with the overrides of the command line."""
        from ...inputs.recipe import load_recipe

        return load_recipe(self.recipe_name, self.changes)

    @property
    def arguments(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "data_free": self.data_free, "moments": self.moments}

    def has_images(self, images: ImagesFlags) -> bool:
        """Whether the conversion is calibrated on images."""
        return images.data is not None and not self.data_free

    def notes(self, images: ImagesFlags) -> list[str]:
        """A warning of each stage that works without images, to be printed before the work."""
        return image_notes(self.recipe, self.has_images(images))


@dataclass(frozen=True)
class CodingFlags(CalibrationFlags):
    """The same, and how the result is stored."""

    codec: Annotated[
        Text,
        _recipe(
            metavar="NAME",
            autocompletion=codec_names,
            help="Store the tensors with this codec; see `kdna ls codecs`. --target-bytes is then the coded size.",
        ),
    ] = None

    @property
    def keys(self) -> dict[str, Any]:
        return {**super().keys, "codec": self.codec}


@dataclass(frozen=True)
class OutputFlags:
    """How the result is printed."""

    json: Annotated[bool, _run("--json", help="Print the result as JSON.")] = False
    quiet: Annotated[bool, _run("--quiet", "-q", help="Print no progress and no hints on stderr.")] = False
    verbose: Annotated[bool, _run("--verbose", "-v", callback=_remember, help="Print the traceback of an error.")] = (
        False
    )


@dataclass(frozen=True)
class RunFlags(OutputFlags):
    """The same, and the device."""

    device: Annotated[str, _run(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        return {"device": device(self.device)}
