"""What leaves the page of `kdna explore`: a plan or a recipe as a file, and a conversion."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.explore import Exploration
from ..core.atomic import require_writable, write_text
from ..core.errors import FolderError, KdnaError, cause
from ..core.shown import shown
from ..core.specs import Plan, to_json
from ..network.folder import is_ours
from ..stages.plan.budget import PlanBudget
from ..stages.plan.steered import Steered
from .converting import Converting, converting
from .writing_out import GivenOptions, command_by, command_text, recipe_text

ALL_DENSE = (
    "Nothing was written: your changes leave no layer to convert, and kdna convert refuses such a recipe. Undo a "
    "change first."
)


@dataclass(frozen=True)
class Steering:
    """Where the user has steered: the plan, the database with the edits, and the budget."""

    plan: Plan
    at: Steered
    budget: PlanBudget


@dataclass
class SteeringOutputs:
    """Writes files, and runs one conversion at a time. What is returned changes the page, by the keys of explore.js.

    Attributes:
        exploration: What is steered.
        command: The command line, for the report of a conversion.
        given: Its options that a told command repeats.
        conversion: The one that runs or has ended.
    """

    exploration: Exploration
    command: str
    given: GivenOptions
    conversion: Converting | None = None

    def write(self, what: str, path: str, force: bool, steering: Steering) -> dict[str, Any]:
        """Write a plan or a recipe, or start the conversion. A file that exists is replaced only with `force`."""
        if not path.strip():
            return {"told": "Name a file first."}
        try:
            target = Path(path.strip()).expanduser()
            with suppress(FileNotFoundError, NotADirectoryError):
                target.stat()
        except (OSError, ValueError, RuntimeError) as error:
            return {"told": f"This path cannot be used: {shown(cause(error))}"}
        try:
            if what == "convert":
                return self._start(target, steering.plan, force)
            return self._write_file(what, target, force, steering)
        except KdnaError as error:
            return {"told": str(error)}
        except OSError as error:
            return {"told": f"This path cannot be used: {shown(cause(error))}"}

    def progress(self) -> dict[str, Any]:
        """How far the conversion is, and how it ended."""
        one = self.conversion
        if one is None:
            return {"progress": None}
        if one.ended is not None:
            return {"progress": None, "told": one.ended}
        count = f" {one.done}/{one.total}" if one.total else ""
        return {"progress": {"text": f"{one.what}{count}", "share": one.done / one.total if one.total else None}}

    @property
    def converts(self) -> bool:
        return self.conversion is not None and self.conversion.ended is None

    def stop(self) -> None:
        """Stop the conversion."""
        if self.conversion is not None:
            self.conversion.stop()

    def _write_file(self, what: str, target: Path, force: bool, steering: Steering) -> dict[str, Any]:
        """Write a plan or a recipe."""
        if what == "recipe" and not steering.at.database.choices:
            return {"told": ALL_DENSE}
        if target.is_dir():
            raise FolderError("KD601", f"{target} is a folder. Name a file.")
        if target.exists() and not force:
            return {"replace": f"{target} exists. Replace it?"}
        plan, at, budget = steering.plan, steering.at, steering.budget
        write_text(target, to_json(plan) if what == "plan" else recipe_text(self.exploration, at, budget))
        command = command_text(self.exploration, command_by(target, what, self.given, at, budget))
        return {"told": f"Written to {target}. To convert by it: {command}"}

    def _start(self, target: Path, plan: Plan, force: bool) -> dict[str, Any]:
        """Start the conversion into a folder."""
        if self.converts:
            return {"told": "A conversion is running."}
        if target.exists():
            if not is_ours(target):
                return {"told": f"{target} was not written by kdna and is not replaced. Name another folder."}
            if not force:
                return {"replace": f"{target} exists. Replace it?"}
        require_writable(target)
        work = self.exploration
        self.conversion = converting(work.arguments, work.recipe.text, to_json(plan), target, force, self.command)
        return {"told": "", **self.progress()}
