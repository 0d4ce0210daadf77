"""The README.md of a converted folder: a model card for people and for the Hub."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from typing import Any

import yaml

from ...core.measurements import MEASURES, Divergence
from ...core.shown import shown
from ...core.specs import ModelRef, Plan, Totals
from .report import Report

_TAGS = ["kdna", "model-compression", "kernel-sharing"]
# The Hub's names of tasks (https://huggingface.co/tasks).
_PIPELINES = {
    "classify": "image-classification",
    "detect": "object-detection",
    "segment": "image-segmentation",
    "image": "image-to-image",
    "embed": "image-feature-extraction",
}


def model_card(plan: Plan, recipe: str, report: Report, folder: str) -> str:
    """Markdown with YAML front matter: the source, the size, the divergence, and how to load and reproduce the net.

    Of `report` it shows `divergence` and `command`, where they are not None.
    """
    front = _front_matter(plan.model.name, report.divergence)
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {_plain(folder)}",
        f"{_code(plan.model.name)} {_what(plan, report)}.",
        _costs(plan.original, plan.planned),
        _divergence(report.divergence),
        "## Load\n\n" + _load(folder),
        "## Reproduce\n\n" + _make(plan.model, recipe, report.command),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(name: str, measured: Divergence | None) -> dict[str, Any]:
    """What the Hub reads. It takes a base model only by its own names, OWNER/NAME."""
    on_hub = re.fullmatch(r"(?:timm:)?hf[-_]hub:([\w.-]+/[\w.-]+)", name)
    base = {"base_model": on_hub[1], "base_model_relation": "quantized"} if on_hub else {}
    pipeline = _PIPELINES.get(measured.task if measured else "")
    return base | {"library_name": "kdna", "tags": _TAGS} | ({"pipeline_tag": pipeline} if pipeline else {})


def _what(plan: Plan, report: Report) -> str:
    """What the conversion did: shared kernels, a codec, or both."""
    layers = sum(len(family.members) for family in plan.families)
    shared = f"with its kernels shared across layers by kdna, {len(plan.families)} families, {layers} layers converted"
    coded = f"its weights coded by kdna ({_plain(report.code.codec)})" if report.code else ""
    return ", ".join(part for part in (shared if layers else "", coded) if part) or "unchanged, in a folder of kdna"


def _costs(before: Totals, after: Totals) -> str:
    rows = [
        f"| {name} | {was:,} | {now:,} | {now / was:.1%} |"
        for name, was, now in (
            ("parameters", before.params, after.params),
            ("bytes of the file", before.bytes, after.bytes),
            ("multiply-adds per image, run factored", before.macs, after.macs),
        )
        if was
    ]
    table = "\n".join(["| | original | converted | kept |", "| --- | ---: | ---: | ---: |", *rows])
    return f"{table}\n\nFolded to ordinary weights, it has the multiply-adds of the original."


def _divergence(measured: Divergence | None) -> str:
    if measured is None:
        return ""
    values = {name: value for name, value in asdict(measured).items() if isinstance(value, int | float)}
    titled = {MEASURES[name].title: value for name, value in measured.measures.items() if name in MEASURES}
    rows = [f"| {name} | {_number(value)} |" for name, value in (values | titled).items()]
    of = f" Task: {_plain(measured.task)}." if measured.task != "classify" else ""
    return "\n".join([f"Measured against the original on the same images.{of}\n", "| | |", "| --- | ---: |", *rows])


def _load(folder: str) -> str:
    path = json.dumps(folder, ensure_ascii=False)
    code = f"import kdna_convert\n\nmodel = kdna_convert.load({path}, folded=True)  # ordinary weights"
    merged = f"kdna export {shlex.quote(folder)} --to merged -o merged.safetensors"
    plain = "As an ordinary state dict of the original architecture"
    alone = "Or with torch alone: `loader.state_dict(folder)` of the `loader.py` in this folder."
    return f"{_block(code, 'python')}\n\n{plain}:\n\n{_block(merged)}\n\n{alone}"


def _make(model: ModelRef, recipe: str, command: str | None) -> str:
    checkpoint = f", checkpoint {_code(model.checkpoint)}" if model.checkpoint else ""
    origin = f"From {_code(model.name)}{checkpoint}; sha256 of its tensors {_code(model.sha256)}."
    by = f"\n\n{_block(command)}" if command else ""
    return f"{origin}{by}\n\nThe recipe:\n\n{_block(recipe.strip(), 'yaml')}"


def _code(text: str) -> str:
    """Text as code in a line. Its fence is longer than any row of backticks in the text."""
    text = shown(text)
    fence = "`" * (_longest_ticks(text) + 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _block(text: str, language: str = "") -> str:
    """Lines of text as a block of code, which nothing in the text can end."""
    text = shown(text, lines=True)
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _plain(text: str) -> str:
    """Text in which no character is Markdown or HTML."""
    return re.sub(r"([\\`*<>\[\]|&#])", r"\\\1", shown(text))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
