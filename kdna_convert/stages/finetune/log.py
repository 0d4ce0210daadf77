"""Report the steps of a fine-tune: progress, TensorBoard, and one line of JSON per step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ...core.errors import FolderError
from ...core.specs import Progress
from ...inputs.finetune_settings import Settings
from .engine import Engine
from .length import Length
from .steps import StepOutcome
from .training_state import Numbers


class StepLog:
    """Reports every step of a fine-tune. A resumed fine-tune continues after step `begin`."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        length: Length,
        path: Path | None,
        begin: int,
        progress: Progress | None,
    ) -> None:
        self.engine, self.settings, self.length = engine, settings, length
        self.file = None if path is None or not engine.leads else JsonLines(path, begin)
        self.progress = progress if engine.leads else None

    def add(self, numbers: Numbers, outcome: StepOutcome, rate: float) -> None:
        """Report a step and its learning rate. Raises FolderError KD604."""
        speed = self.settings.batch_size * numbers.step / max(1e-9, numbers.elapsed)
        values = {"loss": outcome.loss, "agreement": outcome.agreement, "images_per_second": speed}
        if math.isnan(outcome.agreement):  # one output has no classes
            del values["agreement"]
        if self.file is not None:
            self.file.add(step=numbers.step, seconds=outcome.elapsed, rate=rate, **values)
        self.engine.accelerator.log(values, step=numbers.step)
        if self.progress is not None:
            same = [f"agreement {values['agreement']:.1%}"] if "agreement" in values else []
            detail = ", ".join([f"loss {outcome.loss:.4f}", *same, f"{speed:.0f} images/s"])
            self.progress(f"fine-tune: {detail}", numbers.step, self.length.total(numbers.step, numbers.elapsed))

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


class JsonLines:
    """Appends to the file at `path`. First removes the lines of a killed run that are after step `begin`."""

    def __init__(self, path: Path, begin: int) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if begin:
                self._keep_until(begin)
            self.file = path.open("a" if begin else "w", encoding="utf-8")
        except OSError as error:
            raise FolderError("KD604", f"{path} cannot be written: {error}") from error

    def add(self, **values: Any) -> None:
        """Write a line. Raises FolderError KD604."""
        try:
            self.file.write(json.dumps(values) + "\n")
            self.file.flush()
        except OSError as error:
            raise FolderError("KD604", f"{self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _keep_until(self, begin: int) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step(line) is not None and (_step(line) or 0) <= begin]
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)


def _step(line: str) -> int | None:
    """The step of a line; None for an incomplete line of a killed run."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
