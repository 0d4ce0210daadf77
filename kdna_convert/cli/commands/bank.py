"""`kdna bank`: several fine-tunes of one net to folders that share tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .completion import recipe_names
from .console import COMMAND, output_path, reporting, show, show_json, tell, tell_remarks
from .grouped import grouped
from .option_values import Text
from .options import (
    BYTES_HELP,
    DATA_HELP,
    RECIPE_HELP,
    SET_HELP,
    SHARE,
    SIZE,
    Force,
    OutputFolder,
    RunFlags,
    TrustFlags,
)

if TYPE_CHECKING:  # imports pydantic, which --help does not need
    from ...inputs.recipe import Recipe

SHARED_HELP = "Use the plan and the shared tensors of this folder; fit only adapters. For a fine-tune that comes later."


@dataclass(frozen=True)
class VariantFlags:
    """The fine-tunes, the recipe and the size."""

    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="One for each fine-tune, or one for several --checkpoint.")
    ]
    checkpoint: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Weights of a fine-tune. Repeat it for each.")
    ] = None
    checkpoint_key: Annotated[
        Text,
        typer.Option(metavar="KEY", help="Key of the weights in each checkpoint. Default: the usual ones, EMA first."),
    ] = None
    checkpoint_prefix: Annotated[
        Text, typer.Option(metavar="PREFIX", help="Prefix of the net's weights in each checkpoint.")
    ] = None
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="DATA", help=f"Once, or for each fine-tune. {DATA_HELP}"),
    ] = None
    shared: Annotated[Text, typer.Option(metavar="FOLDER", help=SHARED_HELP)] = None
    recipe_name: Annotated[
        Text,
        typer.Option(
            "--recipe",
            "-r",
            metavar="RECIPE",
            help=f"{RECIPE_HELP} Default: variants, or that of --shared.",
            autocompletion=recipe_names,
        ),
    ] = None
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)] = None
    target_params: Annotated[
        Text,
        typer.Option(
            metavar="SHARE",
            help="Share of the parameters of all fine-tunes, a shared one counted once: 0.2, 20% or 1/5.",
            callback=SHARE,
        ),
    ] = None
    target_bytes: Annotated[
        Text, typer.Option(metavar="SIZE", help=f"The same of the bytes. {BYTES_HELP}", callback=SIZE)
    ] = None

    @property
    def recipe(self) -> Recipe | None:
        from ...inputs.recipe import load_recipe

        if self.recipe_name is None and not self.overrides:
            return None
        if self.recipe_name is None and self.shared is not None:
            raise typer.BadParameter("requires --recipe where --shared is given", param_hint="--set")
        return load_recipe(self.recipe_name or "variants", self.overrides or [])

    @property
    def arguments(self) -> dict[str, Any]:
        sizes = {"target_params": self.target_params, "target_bytes": self.target_bytes}
        data = None if not self.data else self.data[0] if len(self.data) == 1 else self.data
        return {
            "models": self.models,
            "checkpoints": self.checkpoint or None,
            "checkpoint_key": self.checkpoint_key,
            "checkpoint_prefix": self.checkpoint_prefix,
            "data": data,
            "shared": self.shared,
            "recipe": self.recipe,
            **sizes,
        }

    @property
    def names(self) -> list[str]:
        """A name for each fine-tune: that of its checkpoint, or of its MODEL, numbered where it is not the only one."""
        sources = [Path(path).stem for path in self.checkpoint or []] or self.models
        plain = [re.sub(r"[^\w.-]+", "-", source).strip("-.") or "net" for source in sources]
        return [name if plain.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(plain, 1)]


@grouped
def bank(
    ctx: typer.Context,
    variants: VariantFlags,
    run: RunFlags,
    trust: TrustFlags,
    output: OutputFolder = None,
    force: Force = False,
) -> None:
    """Convert several fine-tunes of one net, whose folders share tensors. One costs little beside another.

    Writes FOLDER/NAME for each fine-tune, which loads alone, and FOLDER/NAME.update from the first one to it.

    Example:
        kdna bank nets.py:cats nets.py:dogs -d images --target-params 0.2 -o pets
    """
    target, names = output_path(output, force=True), variants.names
    from ...api.bank import bank as stage
    from ...network.folder import require_place, save_variants
    from ..report.bank import bank_table

    require_place(target, names, force=force)
    with reporting(run.quiet) as progress:
        conversions = stage(**variants.arguments, **run.arguments, **trust.arguments, progress=progress)
    for conversion in conversions:
        conversion.report = conversion.report.with_command(ctx.meta[COMMAND])
    written = save_variants(dict(zip(names, conversions, strict=True)), target, base=variants.shared, force=force)
    tell_remarks(_notes([conversion.report.notes for conversion in conversions]))
    show_json(written) if run.json else show(bank_table(written, conversions))
    tell(f"written to {target}\nnext  kdna patch {written[0].folder} NAME.update -o NAME", run.quiet)


def _notes(of_nets: Sequence[Sequence[str]]) -> list[str]:
    """Each note once."""
    return list(dict.fromkeys(note for notes in of_nets for note in notes))
