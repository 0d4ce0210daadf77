"""What the benchmarks of fits and starts have in common: the largest family of a net, as its targets."""

from __future__ import annotations

import argparse

from kdna_convert.api.cached_moments import moments_of
from kdna_convert.api.job import open_job
from kdna_convert.api.keywords import JobOptions
from kdna_convert.core.linalg import Target
from kdna_convert.stages.analyze.targets import targets
from kdna_convert.stages.plan.families import form_families


def parser(description: str | None) -> argparse.ArgumentParser:
    """MODEL, --checkpoint and --data."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("model")
    options.add_argument("--checkpoint")
    options.add_argument("--data")
    return options


def largest(args: argparse.Namespace) -> tuple[str, list[Target]]:
    """The first layer of the largest family that shared CP makes, and its members' targets."""
    options: JobOptions = {"checkpoint": args.checkpoint}
    job = open_job(args.model, "shared-cp", args.data, options, None)
    moments = moments_of(job, None, None)
    _, families = form_families(job.layers, job.assignments)
    sizes = {layer.name: layer.params for layer in job.layers}
    family = max(families, key=lambda one: sum(sizes[name] for name in one.members))
    return family.members[0], list(targets(job.loaded.model, family, moments))
