"""What a fine-tune is asked for."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...core.errors import RecipeError

Part = Literal["norms", "codes", "adapters", "shared", "all"]
Precision = Literal["fp32", "bf16", "fp16"]
EPOCHS = 5  # where no length is said


@dataclass(frozen=True)
class Settings:
    """How to train. Of `epochs`, `steps` and `seconds` at most one; without any, five epochs.

    `train` says what may change (derive.trainable). `lr` is the peak of the adapters' rate, relative to each tensor's
    root mean square, by default found from the first batch (rate.fitting_rate); `shared_lr` that of the rest, by
    default the same, and of codes in integers a step (codes.py); `opt` is an optimiser of timm. The loss is KL at
    `temperature`, plus so many times

    * `label_weight`: the cross-entropy of the labels,
    * `feature_weight`: the relative squared error of the stages' outputs,
    * `orthogonality`: how far the rows of shared tensors, which must train, are from orthogonal (loss.crowding),
    * `subnets`: the mean KL of what the stages before the last answer on their own (subnets.py).

    With `sampled`, half of the steps run with a part of the directions of nested families (sizes.py). `ema` is the
    decay of a moving average of what is trained, which then is what is looked at and kept. `mixup` is the alpha of the
    Beta that two images are mixed by (Zhang et al. 2018, arXiv 1710.09412), so that a teacher that knows the training
    images by heart has something to say that it was not told; 0 leaves images whole. A step takes `batch_size`
    images, in `accumulate` parts. Every `save_every` steps the state is written and the held-back images are looked at;
    after `patience` looks without a gain it ends. Raises RecipeError KD208.
    """

    train: Part = "adapters"
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 128
    accumulate: int = 1
    lr: float | None = None
    shared_lr: float | None = None
    opt: str = "adamw"
    clip: float = math.inf
    temperature: float = 2.0
    label_weight: float = 0.0
    feature_weight: float = 0.0
    orthogonality: float = 0.0
    subnets: float = 0.0
    sampled: bool = False
    ema: float = 0.0
    augment: bool = True
    mixup: float = 0.0
    precision: Precision = "fp32"
    save_every: int = 100
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = {name: value for name in ("epochs", "steps", "seconds") if (value := getattr(self, name)) is not None}
        if len(lengths) > 1:
            raise RecipeError("KD208", f"{' and '.join(lengths)}: how long to train is said once")
        positive = {"batch_size", "accumulate", "lr", "shared_lr", "clip", "temperature", "save_every", "patience"}
        for name in (*lengths, *sorted(positive)):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError("KD208", f"{name}: must be above 0, got {value}")
        for name in ("label_weight", "feature_weight", "orthogonality", "subnets", "mixup", "seed"):
            if not getattr(self, name) >= 0:
                raise RecipeError("KD208", f"{name}: must not be below 0, got {getattr(self, name)}")
        if self.orthogonality and self.train in ("norms", "codes", "adapters"):
            raise RecipeError("KD208", "orthogonality: it is of the shared tensors, which do not train; --train shared")
        if self.mixup and self.label_weight:
            raise RecipeError("KD208", "mixup: a mixed image has no label of its own; leave label_weight out")
        if not 0 <= self.ema < 1:
            raise RecipeError("KD208", f"ema: must be at least 0 and below 1, got {self.ema}")
        if self.batch_size % self.accumulate:
            raise RecipeError(
                "KD208", f"batch_size: {self.batch_size} images cannot be taken in {self.accumulate} parts"
            )

    def steps_for(self, images: int) -> int | None:
        """How many steps these are; None where the clock decides."""
        if self.steps is not None or self.seconds is not None:
            return self.steps
        return math.ceil((self.epochs or EPOCHS) * images / self.batch_size)

    def said(self) -> dict[str, Any]:
        """As JSON: what a stopped run must have had in common with the one that goes on."""
        return {**asdict(self), "clip": None if math.isinf(self.clip) else self.clip}
