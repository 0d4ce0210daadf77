"""Commands about kdna itself: what there is, what a code means, what it runs on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer

from ...core.errors import CODES
from .console import output_path, progress_bar, show, show_json
from .options import Output, grouped

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SHOWN_VERSIONS = ("torch", "torchvision", "timm", "safetensors", "numpy", "scipy", "scikit-learn", "pydantic", "typer")


class Kind(str, Enum):
    """What `kdna ls` lists."""

    models = "models"
    schemes = "schemes"
    routing = "routing"
    codecs = "codecs"
    recipes = "recipes"


def ls(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    pattern: Annotated[str, typer.Argument(help="Only names that match, as 'resnet*'.")] = "*",
    json: JsonFlag = False,
) -> None:
    """List models, schemes, routing, codecs or recipes."""
    from ..report.listing import listing

    if kind is Kind.routing:
        _show_routing(pattern, json)
        return
    entries = {name: what for name, what in _entries(kind).items() if fnmatch(name, pattern)}
    show_json(list(entries)) if json else show(listing(entries))


def explain(
    code: Annotated[str | None, typer.Argument(help="A code, as KD301; without one, all of them.")] = None,
) -> None:
    """Say what an error or reason code means."""
    from ..report.listing import listing

    if code is None:
        show(listing(CODES))
        return
    known = code.upper() if code.upper() in CODES else f"KD{code}"
    if known not in CODES:
        close = get_close_matches(code.upper(), CODES, n=3, cutoff=0.7)
        raise typer.BadParameter(f"no code {code}" + (f"; close to it: {', '.join(close)}" if close else ""))
    show(listing({known: CODES[known]}))


@grouped
def demo(
    out: Output,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Keep the converted folder here.")] = None,
) -> None:
    """Do the whole job on the bundled net and images: analyze to verify, in under a minute."""
    target = output and output_path(output, force=False)
    from ...api.demo import run as stage
    from ..report.demo import demo_report

    with progress_bar(out.quiet) as progress:
        outcome = stage(target, progress=progress)
    show_json(outcome) if out.json else show(demo_report(outcome))


def env(json: JsonFlag = False) -> None:
    """Show versions and devices, for a bug report."""
    from ..report.listing import listing

    facts = _environment()
    show_json(facts) if json else show(listing({name: str(value) for name, value in facts.items()}))


def _show_routing(pattern: str, json: bool) -> None:
    """With --json a list of objects: a routing adds, and what it adds is part of what it is."""
    from ...routing import ROUTINGS
    from ...routing.catalogue import catalogue
    from ..report.routing import routing_table

    found = catalogue({name: kind for name, kind in ROUTINGS.items() if fnmatch(name, pattern)})
    show_json(found) if json else show(routing_table(found))


def _entries(kind: Kind) -> dict[str, str]:
    if kind is Kind.recipes:
        from .recipes import headlines

        return headlines()
    if kind is Kind.models:
        from ...inputs.models.listing import known_models

        return dict.fromkeys(known_models(), "")
    return {name: _card(plugin) for name, plugin in _table(kind).items()}


def _table(kind: Kind) -> Mapping[str, type]:
    from ...codecs import CODECS
    from ...schemes import SCHEMES

    codecs = {name: type(codec) for name, codec in CODECS.items()}
    return {Kind.schemes: SCHEMES, Kind.codecs: codecs}[kind]


def _card(plugin: type) -> str:
    """The first line of its file, which says what it is, and its own description, which says what its options are."""
    module = sys.modules[plugin.__module__].__doc__ or ""
    return " ".join([module.strip().split("\n")[0], *(plugin.__doc__ or "").split()])


def _environment() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    import torch

    from ... import __version__

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "kdna": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in SHOWN_VERSIONS},
        "threads": torch.get_num_threads(),
        "cuda": ", ".join(cuda) or "none",
    }
