"""Convert every convolutional net of timm and torchvision with random weights at a small input, and record the outcome.

    python benchmarks/coverage.py                      # the whole zoo; goes on where a stopped run left off
    python benchmarks/coverage.py 'resnet*' --jobs 1   # some nets
    python benchmarks/coverage.py --write              # docs/coverage.md and the list of `kdna ls models --coverage`

In each net, one layer of every kind (class, kernel size, stride, dilation, grouped or not) is converted, the smallest,
at a fixed rank. The converted net is saved, loaded, loaded folded and exported as merged weights, and the outputs are
compared. Every net appends one line to benchmarks/results/coverage.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from itertools import zip_longest
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.errors import KdnaError, ModelError
from kdna_convert.core.specs import Layer, ModelRef
from kdna_convert.inputs.models import example_input, fit_weights, read_state_dict, state_digest
from kdna_convert.inputs.models.building import build
from kdna_convert.inputs.models.inputs import data_config, override
from kdna_convert.inputs.models.names import parse_name
from kdna_convert.inputs.recipe import Recipe, resolve
from kdna_convert.network.derive import factor
from kdna_convert.network.folder import load, save
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.export import EXPORTS, write_export

ROOT = Path(__file__).parent.parent
LINES = ROOT / "benchmarks" / "results" / "coverage.jsonl"
PAGE = ROOT / "docs" / "coverage.md"
LISTED = ROOT / "kdna_convert" / "inputs" / "models" / "coverage.json"

SIDES = (64, 128, 256)  # input sizes that are tried before the net's own
FRAMES = 8
KINDS = 8  # at most so many layers of a net are converted
IMAGES = 2
SIZE_WORDS = (
    *(
        "test",
        "atto",
        "femto",
        "pico",
        "zepto",
        "nano",
        "xxs",
        "xs",
        "xxt",
        "xt",
        "mini",
        "micro",
        "tiny",
        "ti",
        "t",
        "s",
    ),
    *("small", "m", "medium", "b", "base", "l", "large", "xl", "xlarge", "h", "huge", "giant", "g", "xxlarge"),
)
TOLERANCE = 1e-4  # of the largest output
LINEAR = "type:Linear"
# Arguments that make a net's own resizing small.
ARGUMENTS = {
    "rcnn": "min_size=128, max_size=192",
    "fcos": "min_size=128, max_size=192",
    "retinanet": "min_size=128, max_size=192",
}
GOOD = ("converted", "with include")
SKIPPED = ("no convolutions", "limit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of nets, as kdna takes them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seconds", type=int, default=90, help="time limit of a net")
    parser.add_argument("--memory", type=float, default=6.0, help="memory limit of a net, GiB")
    parser.add_argument("--params", type=float, default=150.0, help="the most parameters of a net, millions")
    parser.add_argument("--minutes", type=float, default=90.0, help="start no net after so many minutes")
    parser.add_argument("--again", action="store_true", help="also nets whose last line is a traceback or a refusal")
    parser.add_argument("--lines", type=Path, default=LINES, help="the file of results")
    parser.add_argument("--write", action="store_true", help="write the tables from the results, and run nothing")
    args = parser.parse_args()
    if args.write:
        write(read_lines(args.lines))
        return
    done = read_lines(args.lines)
    kept = {name for name, row in done.items() if not args.again or row["outcome"] not in ("traceback", "refused")}
    names = [name for name in zoo() if any(fnmatch(name, pattern) for pattern in args.patterns) and name not in kept]
    run(names, args)
    print(summary(list(read_lines(args.lines).values())))


def zoo() -> list[str]:
    """The names of all nets, the smallest of every family before the next of any, for runs that are stopped."""
    families: dict[str, list[str]] = {}
    for name in [*timm.list_models(), *(f"torchvision:{name}" for name in torchvision.models.list_models())]:
        families.setdefault(family_of(name), []).append(name)
    for names in families.values():
        names.sort(key=size_in_name)
    return [name for row in zip_longest(*families.values()) for name in row if name is not None]


def size_in_name(name: str) -> tuple[int, list[int], str]:
    """How large a net is, as far as its name says so."""
    words = set(re.split(r"[_.:]|(?<=\D)(?=\d)", name))
    place = next((place for place, word in enumerate(SIZE_WORDS) if word in words), SIZE_WORDS.index("medium"))
    return place, [int(number) for number in re.findall(r"\d+", name)], name


def family_of(name: str) -> str:
    """The file that defines the net."""
    source, _, path = name.rpartition(":")
    if source == "torchvision":
        return f"torchvision:{torchvision.models.get_model_builder(path).__module__.rpartition('.')[2]}"
    return timm.model_entrypoint(path).__module__.rpartition(".")[2]


# --- the run --------------------------------------------------------------------------------------------------------


def run(names: Sequence[str], args: argparse.Namespace) -> None:
    """Every net in a process of its own, forked from this one, `jobs` at a time."""
    args.lines.parent.mkdir(parents=True, exist_ok=True)
    _ = kdna.convert  # imports the rest once, before the processes fork
    fork, began, waiting = multiprocessing.get_context("fork"), time.monotonic(), list(reversed(names))
    running: dict[Connection, tuple[Any, str, float]] = {}
    while waiting or running:
        while waiting and len(running) < args.jobs and time.monotonic() - began < 60 * args.minutes:
            name = waiting.pop()
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=child, args=(theirs, name, args))
            process.start()
            theirs.close()
            running[ours] = (process, name, time.monotonic())
        if not running:
            return
        ready = wait_for(list(running), timeout=1.0)
        late = [pipe for pipe, (_, _, start) in running.items() if time.monotonic() - start > args.seconds + 15]
        for pipe in {*ready, *late}:
            process, name, start = running.pop(pipe)
            row = received(pipe) or failed(name, "limit", "killed: out of time or memory")
            row["seconds"] = round(time.monotonic() - start, 1)
            process.kill()
            process.join()
            with args.lines.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{len(waiting):5} {row['seconds']:6.1f} s  {name:44} {row['outcome']} {row.get('detail', '')}"[:200],
                flush=True,
            )


def received(pipe: Connection) -> dict[str, Any] | None:
    try:
        return dict(pipe.recv()) if pipe.poll() else None
    except EOFError:
        return None


def child(pipe: Connection, name: str, args: argparse.Namespace) -> None:
    """Run one net within its limits and send its row."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size = int(args.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(args.seconds)
    pipe.send(row_of(name, int(args.params * 1e6)))


class OutOfTimeError(BaseException):
    """The net's time is over."""


def out_of_time(*_: Any) -> None:
    raise OutOfTimeError


def failed(name: str, outcome: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"net": name, "family": family_of(name), "outcome": outcome, "detail": detail[:300], **more}


def row_of(name: str, most: int) -> dict[str, Any]:
    """What came of one net."""
    try:
        return converted(name, most)
    except KdnaError as error:
        return failed(name, "refused", error.message, code=error.code)
    except (OutOfTimeError, MemoryError) as error:
        return failed(name, "limit", type(error).__name__)
    except Exception as error:  # noqa: BLE001 - finding these is what the run is for
        if "allocate memory" in str(error):
            return failed(name, "limit", "memory")
        frames = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "kdna_convert" in frame.filename]
        return failed(name, "traceback", f"{type(error).__name__}: {error}".splitlines()[0], at=own[-3:])


# --- one net --------------------------------------------------------------------------------------------------------


def converted(name: str, most: int) -> dict[str, Any]:
    text = model_name(name)
    row: dict[str, Any] = {"net": name, "family": family_of(name)}
    convolutions, params = counted(text)
    row |= {"params": params, "convolutions": convolutions}
    if convolutions < 2:  # a transformer with its patch embedding, or a perceptron
        return row | {"outcome": "no convolutions"}
    if params > most:
        return row | {"outcome": "limit", "detail": f"{params / 1e6:.0f} million parameters"}
    net = awake(build(parse_name(text), pretrained=False).float().eval())
    example, layers = surveyed(text, net)
    row |= {"input": list(example.shape[1:]), "layers": len(layers)}
    chosen, include = choice(layers)
    row["reasons"] = dict(Counter(layer.reason for layer in layers if layer.reason is not None))
    recipe = Recipe.model_validate(
        {
            "scheme": None if chosen else "lowrank",
            "include": include,
            "rules": [
                {"layers": [layer.name], "scheme": "lowrank", "options": {"rank": rank(layer)}} for layer in chosen
            ],
            "calibration": {"images": IMAGES, "heldout": 0, "batch": IMAGES, "memory": 2**28},
        }
    )
    images = torch.cat([example, example.flip(-1)])
    sizes = {"input_size": tuple(example.shape[1:])}
    if len(sizes["input_size"]) != 3 or sizes["input_size"][0] != 3:
        sizes |= {"mean": (0.5,), "std": (0.5,)}
    conversion = kdna.convert(net, recipe=recipe, data=images, inputs=sizes)
    conversion = replace(conversion, plan=replace(conversion.plan, model=ModelRef(text, None, state_digest(net))))
    row |= {
        "converted": sum(len(family.members) for family in conversion.plan.families),
        "equal": equalities(conversion, net, example),
    }
    worst = max(row["equal"].values())
    if not worst <= TOLERANCE:
        return row | {"outcome": "unequal", "detail": f"outputs differ by {worst:.1e} of the largest"}
    return row | {"outcome": "with include" if include else "converted"}


def model_name(name: str) -> str:
    """The net with random weights and a small input, as kdna takes it."""
    small = next((text for part, text in ARGUMENTS.items() if part in name), "")
    return f"{name}({', '.join(part for part in ('pretrained=False', small) if part)})"


def counted(text: str) -> tuple[int, int]:
    """The number of convolutions and of parameters, without values where the net can be built without."""
    try:
        with torch.device("meta"):
            net = build(parse_name(text), pretrained=False)
    except ModelError:  # its factory computes with values
        net = build(parse_name(text), pretrained=False)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    convolutions = sum(isinstance(module, kinds) or "Conv2d" in type(module).__name__ for module in net.modules())
    return convolutions, sum(parameter.numel() for parameter in net.parameters())


def awake(net: nn.Module) -> nn.Module:
    """The net without branches that its initialization silences: gains and layer scales near 0 get ordinary values."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() and float(parameter.abs().max()) < 1e-3:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def surveyed(text: str, net: nn.Module) -> tuple[Tensor, tuple[Layer, ...]]:
    """An input of the smallest size that the net takes, and its layers."""
    own = data_config(parse_name(text), net)
    channels, *size = own.input_size
    video = len(size) == 3
    sizes = [(FRAMES, side, side) if video else (side, side) for side in SIDES if side < size[-1]]
    for tried in [*sizes, tuple(size)]:
        example = example_input(override(own, input_size=(channels, *tried)))
        try:
            return example, survey(net, example)
        except ModelError:
            if tried == tuple(size):
                raise
    raise AssertionError("the net's own size is tried last")


def choice(layers: Sequence[Layer]) -> tuple[list[Layer], list[str]]:
    """One layer of every kind that a recipe converts by default, and what it must include to convert any."""
    for include in ([], [LINEAR]):
        try:
            assigned = resolve(Recipe.model_validate({"scheme": "lowrank", "include": include}), layers)
        except KdnaError:  # no linear layer
            break
        free = {one.layer for one in assigned if one.reason is None}
        kinds: dict[object, Layer] = {}
        for layer in sorted(
            (layer for layer in layers if layer.name in free), key=lambda layer: layer.patch * layer.out_channels
        ):
            if rank(layer) * (layer.patch + layer.out_channels) < layer.patch * layer.out_channels:
                kinds.setdefault((layer.kind, layer.shape[2:], layer.stride, layer.dilation, layer.groups > 1), layer)
        if kinds:
            return list(kinds.values())[:KINDS], include
    return [], []


def rank(layer: Layer) -> int:
    return max(1, min(layer.patch, layer.out_channels // layer.groups) // 8)


def equalities(conversion: kdna.Conversion, net: nn.Module, example: Tensor) -> dict[str, float]:
    """By how much the outputs of each form of the converted net differ, relative to the largest output."""
    expected = list(outputs(conversion.model, example))
    with tempfile.TemporaryDirectory() as place:
        folder = save(conversion, Path(place) / "converted")
        folded = load(folder, folded=True, model=copy.deepcopy(net))
        differences = {
            "loaded": difference(expected, load(folder), example),
            "folded": difference(expected, folded, example),
        }
        file = write_export(EXPORTS["merged"], conversion, Path(place) / "merged.safetensors").file
        merged = fit_weights(net, read_state_dict(file), file)
        differences["merged"] = difference(expected, merged, example)
    factored = difference(expected, factor(copy.deepcopy(conversion.model)), example)
    if factored > TOLERANCE and difference(expected, conversion.model, example * (1 + 1e-6)) > TOLERANCE:
        return differences  # it selects boxes by score: rounding alone changes which, and a chain rounds differently
    return differences | {"factored": factored}


def difference(expected: Sequence[Tensor], net: nn.Module, example: Tensor) -> float:
    pairs = list(zip(expected, outputs(net, example), strict=True))
    return max(
        (float((a - b).abs().max() / a.abs().max().clamp_min(1e-20)) for a, b in pairs if a.numel()), default=0.0
    )


def outputs(net: nn.Module, example: Tensor) -> Iterator[Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return flat(net.eval()(example))


def flat(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of an output, at any depth."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        yield from (tensor for value in output.values() for tensor in flat(value))
    elif isinstance(output, list | tuple):
        yield from (tensor for value in output for tensor in flat(value))


# --- the tables -----------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The last row of every net."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    return {row["net"]: row for row in rows}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    outcomes = Counter(row["outcome"] for row in rows)
    tried = [row for row in rows if row["outcome"] not in SKIPPED]
    good = sum(row["outcome"] in GOOD for row in tried)
    share = f"{100 * good / len(tried):.1f} %" if tried else "none"
    return f"{good} of {len(tried)} nets with convolutions convert ({share}); {dict(outcomes)}"


def write(rows: dict[str, dict[str, Any]]) -> None:
    """The page and the list, from the results."""
    print(summary(list(rows.values())))
    LISTED.write_text(json.dumps({name: outcome_of(row) for name, row in sorted(rows.items())}, indent=0) + "\n")
    PAGE.write_text(page(list(rows.values())))


def outcome_of(row: dict[str, Any]) -> str:
    """A net's outcome in a few words."""
    words = {
        "converted": "converts",
        "with include": f"converts with include: {LINEAR}",
        "refused": f"refused ({row.get('code')})",
    }
    return words.get(row["outcome"], row["outcome"])


def page(rows: Sequence[dict[str, Any]]) -> str:
    tried = [row for row in rows if row["outcome"] not in SKIPPED]
    good = sum(row["outcome"] in GOOD for row in tried)
    counts = Counter(row["outcome"] for row in rows)
    head = f"""# Coverage

Written by `python benchmarks/coverage.py --write` with torch {release(torch)}, timm {release(timm)},
torchvision {release(torchvision)}. `kdna ls models --coverage` lists the same by net.

Every net of timm and torchvision with two convolutions or more is built with random weights and run at the smallest
input that it takes, from {SIDES[0]} pixels. One layer of each kind (class, kernel size, stride, dilation, grouped or
not; at most {KINDS}) is converted to low rank. The net is saved, loaded, loaded folded, exported as merged weights and
factored. Its outputs must agree to {TOLERANCE:g} of the largest. The run says that a net can be converted, not how
accurate it is afterwards.

The run has reached {len(rows)} of the {len(zoo())} nets of both libraries, the smallest of every family first.
The seconds of all nets sum to {sum(row["seconds"] for row in rows) / 60:.0f} minutes of one process.

**{good} of {len(tried)} nets convert ({100 * good / max(1, len(tried)):.1f} %).** {counts["no convolutions"]} nets with
fewer than two convolutions are left out, and {counts["limit"]} that exceed the limits of time, memory or parameters.

| outcome | nets |
| --- | ---: |
"""
    outcomes = Counter(outcome_of(row) for row in tried)
    table = "".join(f"| {outcome} | {count} |\n" for outcome, count in outcomes.most_common())
    bad = sorted((row for row in tried if row["outcome"] not in GOOD), key=lambda row: (outcome_of(row), row["net"]))
    rest = "".join(f"| {row['net']} | {outcome_of(row)} | {cell(row.get('detail', ''))} |\n" for row in bad)
    listed = f"\n## Not converted\n\n| net | outcome | message |\n| --- | --- | --- |\n{rest}" if bad else ""
    return head + table + listed + "\n## By family\n\n" + families(tried)


def release(library: Any) -> str:
    return str(library.__version__).partition("+")[0]


def families(tried: Sequence[dict[str, Any]]) -> str:
    table = "| family | nets | convert | reasons for layers that keep their weights |\n| --- | ---: | ---: | --- |\n"
    for family in sorted({row["family"] for row in tried}):
        own = [row for row in tried if row["family"] == family]
        codes = sorted({code for row in own for code in row.get("reasons", {})})
        table += f"| {family} | {len(own)} | {sum(row['outcome'] in GOOD for row in own)} | {', '.join(codes)} |\n"
    return table


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:160]


if __name__ == "__main__":
    main()
