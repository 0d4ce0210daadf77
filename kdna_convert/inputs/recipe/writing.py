"""The text of a new recipe with a comment on every key, which `kdna init` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import get_args

from ...core.errors import PlanError, RecipeError
from .schema import RoutingOrNone
from .sizes import parse_share, parse_size, parse_time

GOALS = ("parameters", "accuracy", "macs", "bytes", "routing")
NO_TIME, ROUTING = "none", "se"
# By goal: the size that is proposed, and what a fine-tune trains.
SIZES = {"parameters": "50%", "accuracy": "50%", "macs": "60%", "bytes": "1/20", "routing": "50%"}
TRAINED = {goal: "norms" if goal == "bytes" else "adapters" for goal in GOALS}
REPAIRS = {
    "parameters": "[refit, reconstruct]",
    "accuracy": "[refit, refit]",
    "macs": "[refit, reconstruct]",
    "routing": "[refit, reconstruct]",
}

CP = """\
# The scheme: how a family of layers shares kernels. `kdna ls schemes` lists all schemes.
scheme: cp
"""
SCHEME_TEXT = {
    "parameters": CP,
    "accuracy": f"""\
{CP}
# Other schemes, which the plan chooses where it predicts less error. A codebook does not reduce
# MACs.
alternatives:
  - {{scheme: codebook, options: {{gain: filter}}}}
  - {{scheme: codebook, options: {{gain: filter, codes: 2}}}}
  - {{scheme: codebook, options: {{gain: filter, codes: 4}}}}
  - {{scheme: codebook, options: {{gain: filter, cell: 2}}}}
""",
    "macs": """\
# The scheme: how a family of layers shares kernels. cp, separable, tucker, basis and lowrank can
# run as a chain of smaller convolutions: kdna_convert.factor(model).
scheme: cp
""",
    "bytes": """\
# The scheme: dense shares nothing. The codec alone makes the file smaller.
scheme: dense

# The codec of the file: fp16, bf16, int8, int4 or entropy. Only entropy meets a size of your choice.
codec: entropy
""",
    "routing": f"""\
{CP}
# The routing: how a layer depends on its input. It adds parameters. Train it with a better net as
# teacher, or with labels: kdna finetune FOLDER --data DATA --teacher MODEL.
# `kdna ls routing` lists all routings.
routing: {{routing}}
""",
}
ONE_SIZE = """\
# The size: exactly one of params (share of the parameters), macs (share of the MACs) and bytes (of
# the file: 1.2MB).
"""
BUDGET_TEXT = {
    "params": f"{ONE_SIZE}budget:\n  params: {{size}}\n",
    "macs": f"{ONE_SIZE}budget:\n  macs: {{size}}\n",
    "bytes": """\
# The size of the file with its header. --target-bytes overrides it.
budget:
  bytes: {size}
""",
    "share": """\
# The size of the file as a share of the original's is an option of the command: --target-bytes {size}.
# A size in bytes can stand here.
# budget:
#   bytes: 1.2MB
""",
}
REPAIR_TEXT = """\
# Repair steps after the fit: refit, correct, reestimate, reconstruct. They use no labels. A step is
# kept only where it lowers the divergence from the original on held-out images.
repair: {steps}
# repair_time: 3m # the time limit of all repair steps together
"""
TRAIN_COMMENT = "# norms, codes, adapters, shared or all; norms and biases always train"
FINETUNE_TEXT = f"""\
# Fine-tuning by `kdna run`, after conversion and repair. The original is the teacher. Labels are not
# used.
finetune:
  train: {{part}} {TRAIN_COMMENT}
  time: {{time}} # or epochs: 5, or steps: 1000
"""
NO_FINETUNE_TEXT = f"""\
# Fine-tuning by `kdna run`, after conversion and repair. Remove one # per line to use it.
# finetune:
#   train: {{part}} {TRAIN_COMMENT}
#   time: 10m # or epochs: 5, or steps: 1000
"""
REST = """\
# Images: how many calibrate the conversion, and how many are held out to measure the divergence from
# the original.
calibration:
  images: 1000
  heldout: 500

# Layers, by glob patterns on their names. By default the first convolution, the classifier, depthwise
# and Linear layers are excluded. Remove one # to use a key.
# include: [fc]
# exclude: ["layer1.*"]

# Seed of every random choice.
seed: 0
"""


@dataclass(frozen=True)
class Answers:
    """What a new recipe is for, as the user writes it. None is the default of the goal; no training is "none".

    Raises:
        RecipeError: KD203 for an unknown goal or routing, KD208 for a time that cannot be read.
        PlanError: KD506 for a size that cannot be read.
    """

    goal: str = "parameters"
    size: str | None = None
    finetune: str = NO_TIME
    routing: str | None = None
    model: str = "MODEL"
    data: str = "DATA"

    def __post_init__(self) -> None:
        _require(self.goal, GOALS, "goal")
        _require(self.routing or ROUTING, get_args(RoutingOrNone), "routing")
        _budget(self.goal, self.size or SIZES[self.goal])
        if self.finetune != NO_TIME:
            parse_time(self.finetune)


def recipe_text(answers: Answers, file: str) -> str:
    """The recipe as YAML with comments.

    Args:
        answers: What the recipe is for.
        file: The name of the recipe file, for the commands in its first comment.
    """
    title = f"# A recipe for kdna, written by `kdna init --goal {answers.goal}`.\n"
    commands = "".join(f"#   {command}\n" for command in next_commands(answers, file))
    schema = "# `kdna recipe schema` prints every key with its type and limits.\n"
    scheme = SCHEME_TEXT[answers.goal].replace("{routing}", answers.routing or ROUTING)
    parts = [f"{title}#\n{commands}#\n{schema}", scheme]
    parts.append(_budget(answers.goal, answers.size or SIZES[answers.goal]))
    if answers.goal in REPAIRS:
        parts.append(REPAIR_TEXT.replace("{steps}", REPAIRS[answers.goal]))
    finetune = NO_FINETUNE_TEXT if answers.finetune == NO_TIME else FINETUNE_TEXT.replace("{time}", answers.finetune)
    return "\n".join([*parts, finetune.replace("{part}", TRAINED[answers.goal]), REST])


def next_commands(answers: Answers, file: str) -> list[str]:
    """The commands that check the recipe and run it, with MODEL and DATA where these were not given."""
    model, data = quote(answers.model), quote(answers.data)
    size = answers.size or SIZES[answers.goal]
    target = f" --target-bytes {size}" if answers.goal == "bytes" and _is_share(size) else ""
    run = f"kdna run {quote(file)} {model} --data {data}{target} -o small"
    return [f"kdna recipe validate {quote(file)} --model {model}", run]


def _budget(goal: str, size: str) -> str:
    if goal != "bytes":
        key = "macs" if goal == "macs" else "params"
        return BUDGET_TEXT[key].replace("{size}", f"{parse_share(size):g}")
    if _is_share(size):
        return BUDGET_TEXT["share"].replace("{size}", size)
    return BUDGET_TEXT["bytes"].replace("{size}", str(parse_size(size)))


def _is_share(size: str) -> bool:
    try:
        parse_share(size)
    except PlanError:
        return False
    return True


def _require(name: str, names: Sequence[str], what: str) -> None:
    if name not in names:
        raise RecipeError("KD203", f"there is no {what} {name!r}; there are {', '.join(names)}")
