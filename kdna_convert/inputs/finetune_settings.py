"""The settings of a fine-tune. The recipe's section `finetune` and the options of `kdna finetune` derive from them.

Imports neither torch nor pydantic, so that `kdna --help` can read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from ..core.errors import RecipeError

Part = Literal["norms", "codes", "adapters", "shared", "all"]
Precision = Literal["fp32", "bf16", "fp16"]
Panel = Literal["Train", "Safety"]
EPOCHS = 5  # where no length is given
LENGTHS = ("epochs", "steps", "seconds")


@dataclass(frozen=True)
class Limits:
    """What a number must be: above one, at least one, or below one. None does not limit it."""

    above: float | None = None
    least: float | None = None
    below: float | None = None

    def complaint(self, value: float) -> str | None:
        """What is wrong with a value; None for nothing."""
        if self.above is not None and not value > self.above:
            return f"must be above {self.above:g}, got {value}"
        if self.least is not None and not value >= self.least:
            return f"must be at least {self.least:g}, got {value}"
        if self.below is not None and not value < self.below:
            return f"must be below {self.below:g}, got {value}"
        return None


@dataclass(frozen=True)
class About:
    """What the command line says about a setting, in which panel of its help, and its limits."""

    help: str
    metavar: str | None = None
    panel: Panel = "Train"
    limits: Limits = Limits()


def _about(help: str, metavar: str | None = None, panel: Panel = "Train", **limits: float) -> dict[str, About]:  # noqa: A002
    return {"about": About(help, metavar, panel, Limits(**limits))}


@dataclass(frozen=True)
class Settings:
    """How to fine-tune. At most one of `epochs`, `steps` and `seconds`; without any, five epochs.

    The loss is the KL divergence from the teacher at `temperature`, plus the weighted losses. A rate is relative to
    each tensor's root mean square; without `lr` it is estimated from the first batch (rate.fitting_rate). The rate of
    codes is in integer steps. Mixup is that of Zhang et al. 2018, arXiv 1710.09412. Every `save_every` steps the state
    is saved and the net is validated on held-out images; after `patience` validations without improvement it ends.

    Raises:
        RecipeError: KD208 for a setting outside its limits, and for settings that exclude each other.
    """

    train: Part = field(
        default="adapters",
        metadata=_about("What to train: norms, codes, adapters, shared or all. Norms and biases always train.", "PART"),
    )
    epochs: float | None = field(
        default=None, metadata=_about("Length in passes over the images. Default: 5.", "N", above=0)
    )
    steps: int | None = field(default=None, metadata=_about("Length in steps of --batch-size images.", "N", least=1))
    seconds: float | None = field(default=None, metadata=_about("Length as a time: 90s, 10m or 1.5h.", "TIME", above=0))
    batch_size: int = field(default=128, metadata=_about("Images per step, over all processes.", "N", least=1))
    accumulate: int = field(
        default=1, metadata=_about("Split each step into N mini-batches to save memory.", "N", least=1)
    )
    lr: float | None = field(
        default=None,
        metadata=_about("Peak learning rate, relative to each tensor's RMS. Default: estimated.", "X", above=0),
    )
    shared_lr: float | None = field(
        default=None,
        metadata=_about(
            "Learning rate of shared tensors; of codes, in integer steps. Default: --lr; 0.01.", "X", above=0
        ),
    )
    opt: str = field(default="adamw", metadata=_about("Optimizer, by its name in timm.", "NAME"))
    clip: float | None = field(default=None, metadata=_about("Maximum gradient norm.", "X", above=0))
    temperature: float = field(default=2.0, metadata=_about("Temperature of the distillation loss.", "X", above=0))
    label_weight: float = field(
        default=0.0, metadata=_about("Weight of the cross-entropy with the labels.", "X", least=0)
    )
    feature_weight: float = field(
        default=0.0, metadata=_about("Weight of the error of the stages' outputs.", "X", least=0)
    )
    orthogonality: float = field(
        default=0.0, metadata=_about("Weight of the loss that keeps shared rows orthogonal.", "X", least=0)
    )
    subnets: float = field(
        default=0.0, metadata=_about("Weight of the loss of each stage's own answers.", "X", least=0)
    )
    sampled: bool = field(
        default=False, metadata=_about("Train half of the steps at smaller sizes. For nested folders.")
    )
    ema: float = field(
        default=0.0,
        metadata=_about("Decay of an exponential moving average, which is then kept.", "X", least=0, below=1),
    )
    augment: bool = field(default=True, metadata=_about("Random crops and horizontal flips. For folders and datasets."))
    mixup: float = field(default=0.0, metadata=_about("Alpha of mixup; 0 is off.", "X", least=0))
    precision: Precision = field(default="fp32", metadata=_about("fp32, bf16 or fp16.", "TYPE"))
    save_every: int = field(
        default=100, metadata=_about("Save the state and validate every N steps.", "N", "Safety", least=1)
    )
    patience: int | None = field(
        default=None, metadata=_about("Stop after N validations without improvement.", "N", "Safety", least=1)
    )
    seed: int = field(default=0, metadata=_about("Seed of the order and the augmentation.", "N", least=0))

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            complaint = None if value is None else about(setting.name).limits.complaint(value)
            if complaint is not None:
                raise RecipeError("KD208", f"{setting.name}: {complaint}")
        complaint = self.conflict()
        if complaint is not None:
            raise RecipeError("KD208", complaint)

    def conflict(self) -> str | None:
        """Which settings exclude each other; None where none do."""
        if sum(getattr(self, name) is not None for name in LENGTHS) > 1:
            return "more than one length: give one of time, epochs and steps"
        if self.orthogonality and self.train in ("norms", "codes", "adapters"):
            return "orthogonality: the shared tensors do not train; use --train shared (train: shared)"
        if self.mixup and self.label_weight:
            return "mixup: mixed images have no label; leave out label_weight"
        if self.batch_size % self.accumulate:
            return f"batch_size: {self.batch_size} images cannot be split into {self.accumulate} equal mini-batches"
        return None

    def steps_for(self, images: int) -> int | None:
        """The number of steps; None where `seconds` decide."""
        if self.steps is not None or self.seconds is not None:
            return self.steps
        return math.ceil((self.epochs or EPOCHS) * images / self.batch_size)


def about(name: str) -> About:
    """The help and the limits of a setting."""
    found: About = Settings.__dataclass_fields__[name].metadata["about"]
    return found


def kind_of(name: str) -> Any:
    """The type of a setting, without None."""
    hint = get_type_hints(Settings)[name]
    optional = type(None) in get_args(hint)
    return next(each for each in get_args(hint) if each is not type(None)) if optional else hint


def default_of(name: str) -> Any:
    """The default of a setting."""
    return Settings.__dataclass_fields__[name].default
