"""Train with Hugging Face Accelerate: one process or several, in fp32, bf16 or fp16.

`accelerate launch -m kdna_convert finetune ...` and torchrun set the environment that this reads; without it there is
one process.

Every process has the whole net and computes its share of each batch, so the number of processes changes the speed of
a step and not its result. Only the first process writes. core/processes.py forms the process group.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, broadcast_object_list
from torch import Tensor

from ...core.errors import DataError
from ...inputs.finetune_settings import Settings

TRACKED = "kdna"  # the name of a run in TensorBoard


class Engine:
    """What a fine-tune needs of Accelerate. Raises DataError KD408 if the processes cannot divide a batch."""

    def __init__(self, settings: Settings, device: torch.device | None, track: Path | None) -> None:
        # Accelerate's settings are global to the process; a second call may need other ones.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=device is not None and device.type == "cpu",
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            gradient_accumulation_steps=settings.accumulate,
            dataloader_config=DataLoaderConfiguration(split_batches=True),
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
            device_placement=False,
            rng_types=[],
            log_with=None if track is None else "tensorboard",
            project_dir=None if track is None else str(track),
        )
        many = self.accelerator.num_processes
        self.device = self.accelerator.device if many > 1 or device is None else device
        # Accelerate supports fp16 only on accelerators; torch's own scaler also works on a CPU.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        part = settings.batch_size // settings.accumulate
        if part % many:
            what = f"{part} images at a time cannot be divided among {many} processes"
            raise DataError("KD408", f"{what}; choose another --batch-size or --accumulate")
        if track is not None:
            self.accelerator.init_trackers(TRACKED)

    @property
    def leads(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def scale(self) -> tuple[float, int]:
        """The factor on the loss before differentiation (1 except for fp16), and the steps since it last changed."""
        state = self.scaler.state_dict()
        return (float(state["scale"]), int(state["_growth_tracker"])) if state else (1.0, 0)

    @scale.setter
    def scale(self, value: tuple[float, int]) -> None:
        if state := self.scaler.state_dict():
            self.scaler.load_state_dict({**state, "scale": value[0], "_growth_tracker": value[1]})

    def autocast(self) -> AbstractContextManager[None]:
        if self.scaler.is_enabled():
            return torch.autocast(self.device.type, torch.float16)
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(self.scaler.scale(loss))

    def norm(self, optimizer: Any, parameters: Collection[Tensor], clip: float | None) -> float:
        """The norm of the gradients without the loss scale; they are clipped to at most `clip`."""
        self.scaler.unscale_(optimizer)
        return float(self.accelerator.clip_grad_norm_(parameters, math.inf if clip is None else clip))

    def step(self, optimizer: Any) -> None:
        """A step of the optimizer. If a gradient overflowed in fp16, the step is skipped and the scale is halved."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def skip(self) -> None:
        """Skip a step whose gradients are not finite."""
        if self.scaler.is_enabled():
            self.scaler.update()

    def mean(self, *numbers: float | Tensor) -> list[float]:
        """The mean of each number over the processes, so that all of them make the same decisions."""
        rows = [torch.as_tensor(number, dtype=torch.float64).detach().reshape(()).cpu() for number in numbers]
        values = torch.stack(rows)
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values.to(self.device), reduction="mean")
        means: list[float] = values.tolist()
        return means

    def from_first(self, value: Any) -> Any:
        """The value of the first process, in every process."""
        return broadcast_object_list([value])[0] if self.accelerator.num_processes > 1 else value

    def prepare(self, *things: Any) -> Any:
        return self.accelerator.prepare(*things)

    def close(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.free_memory()
