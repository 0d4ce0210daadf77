"""The tasks: what the outputs of a net mean. `TASKS` is the table, task.py the interface, choice.py chooses one."""

from __future__ import annotations

from .binary import Binary
from .choice import TaskChoice, choose
from .classify import Classify
from .detect import Detect, is_detection
from .embed import Embed
from .forward import captured, run
from .image import Image
from .logits import distillation
from .raw import Raw
from .regress import Regress
from .segment import Segment
from .sequence import SequenceTask
from .structure import tensors_in
from .task import Head, Outputs, Statistics, Task

__all__ = [
    "CLASSIFY",
    "TASKS",
    "Head",
    "Outputs",
    "Statistics",
    "Task",
    "TaskChoice",
    "captured",
    "choose",
    "distillation",
    "is_detection",
    "run",
    "tensors_in",
]

CLASSIFY = Classify()
TASKS: dict[str, Task] = {
    task.name: task
    for task in (CLASSIFY, Binary(), Regress(), Embed(), Image(), Segment(), Detect(), SequenceTask(), Raw())
}
