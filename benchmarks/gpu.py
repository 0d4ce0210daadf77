"""What a GPU computes and how fast, in eight minutes: skipped with a message where there is none.

    python benchmarks/gpu.py [DATA] [--device cuda] [--minutes 8]
    python benchmarks/gpu.py --device cpu --quick       # tries the script itself, with tiny nets

The parts: agreement (moments, plan and outputs of a conversion on the CPU and on the GPU), tuning (images/s of a
fine-tune in each precision beside the dense net), routing (throughput of each), epochs (a fine-tune of ResNet-56 at
22 % of its parameters), and conversions of ResNet-18 and of timm's resnet50 by each recipe. Each is a process of its
own with a share of the time, and appends its rows to benchmarks/results/gpu.jsonl as soon as they are measured.
Without DATA the weights are random and the images are noise, or the net and images are the bundled ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import net_flags
from commands import CommandError, Row, append, kdna, machine, run
from noise import noise_images
from routing import COMPARED
from torch import Tensor, nn
from torch.nn import functional as F

import kdna_convert
from kdna_convert.api.cached_moments import moments_of
from kdna_convert.api.job import open_job
from kdna_convert.core.specs import Plan
from kdna_convert.inputs.digits import digits
from kdna_convert.inputs.models import example_input, load_model
from kdna_convert.inputs.recipe import load_recipe, parse_recipe
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.evaluate.timing import benchmark

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
MOMENTS, OUTPUTS = 1e-4, 1e-3  # the largest relative differences of CPU and GPU
IMAGES, HELDOUT = 512, 200
RESNET18 = "torchvision:resnet18(weights=None)"
RESNET50 = "timm:resnet50(pretrained=False)"
BUDGETS = {"balanced": ("params", "50%"), "accurate": ("params", "25%"), "smallest": ("bytes", "1/14")}


@dataclass(frozen=True)
class Setup:
    """The device, DATA where it is at hand, whether all sizes are tiny, and the seconds of a part."""

    device: str
    data: Path | None
    quick: bool
    limit: float

    @property
    def net(self) -> str:
        """The net whose speed is measured."""
        return "kdna:digits" if self.quick else RESNET18

    def noise(self, images: int) -> Tensor:
        """Inputs of that net."""
        size = (1, 8, 8) if self.quick else (3, 224, 224)
        return torch.randn(images, *size, generator=torch.Generator().manual_seed(0))


def agreement(given: Setup) -> Iterator[Row]:
    """Moments, plan and outputs on the CPU and on the device: ResNet-20 of CIFAR-10, or the bundled net."""
    options: Any = {}
    if given.data is None or given.quick:
        model, data = "kdna:digits", "kdna:digits/train"
    else:
        model, _, checkpoint = net_flags("cifar10_resnet20", given.data)[:3]
        data, options = given.data / "cifar10" / "train", {"checkpoint": checkpoint}
    sizes = ["calibration.images=128", "calibration.heldout=64"]
    recipe = load_recipe("shared-cp", sizes)
    moments = {}
    for place in ("cpu", given.device):
        job = open_job(model, recipe, data, {**options, "device": place}, None)
        moments[place] = moments_of(job, None, None)
    worst = max(_difference(mine.second, moments["cpu"][name].second) for name, mine in moments[given.device].items())
    yield {"law": "moments", "worst": worst, "allowed": MOMENTS, "holds": worst <= MOMENTS}
    made = {
        place: kdna_convert.convert(model, recipe=recipe, data=data, target_params=0.5, device=place, **options)
        for place in ("cpu", given.device)
    }
    equal = _choices(made["cpu"].plan) == _choices(made[given.device].plan)
    yield {"law": "plan", "holds": equal}
    nets = [made[place].model.cpu().eval() for place in ("cpu", given.device)]
    with torch.inference_mode():
        x = example_input(made["cpu"].data, 64)
        worst = _difference(nets[1](x), nets[0](x))
    yield {"law": "outputs", "worst": worst, "allowed": OUTPUTS, "holds": worst <= OUTPUTS}


def _difference(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


def _choices(plan: Plan) -> list[object]:
    return [(family.members, family.scheme, family.options) for family in plan.families]


def tuning(given: Setup) -> Iterator[Row]:
    """Images/s of a fine-tune in each precision, its teacher included, beside training steps of the dense net."""
    batch, steps = (16, 3) if given.quick else (128, 40)
    x = given.noise(4 * batch)
    recipe = parse_recipe("scheme: cp\nfit: {sweeps: 1}\nbudget: {params: 0.5}\ncalibration: {images: 32, heldout: 16}")
    conversion = kdna_convert.convert(given.net, recipe=recipe, data=x, device=given.device)
    for precision in ("fp32", "bf16", "fp16"):
        if precision == "fp16" and given.device == "cpu":
            continue  # kdna refuses it there
        how: Any = {"precision": precision, "steps": steps, "batch_size": batch, "train": "shared", "lr": 1e-5}
        tuned = kdna_convert.finetune(conversion, data=x, device=given.device, **how)
        dense = _dense_speed(given, x[:batch], precision, steps)
        report = tuned.report.finetune
        speed = None if report is None else round(report.images_per_second, 1)
        yield {"precision": precision, "batch": batch, "images_per_second": speed, "dense": round(dense, 1)}


def _dense_speed(given: Setup, x: Tensor, precision: str, steps: int) -> float:
    """Images/s of steps that train all parameters of the dense net."""
    net = load_model(given.net).model.to(given.device).train()
    x = x.to(given.device)
    labels = torch.zeros(len(x), dtype=torch.long, device=given.device)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    scaler = torch.amp.GradScaler(given.device, enabled=precision == "fp16")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5)
    began = 0.0
    for step in range(steps + 2):
        if step == 2:
            _finish(given.device)
            began = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(given.device.split(":")[0], kind, enabled=precision != "fp32"):
            loss = F.cross_entropy(net(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    _finish(given.device)
    return steps * len(x) / (time.perf_counter() - began)


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def routing(given: Setup) -> Iterator[Row]:
    """Throughput of each routing against the dense net, all nets taking turns."""
    x = given.noise(8 if given.quick else 64)
    nets: dict[str, nn.Module] = {"dense": load_model(given.net).model}
    recipe = "scheme: dense\ncalibration: {images: 16, heldout: 0}\nrouting: "
    for name in COMPARED:
        nets[name] = _routed(given, recipe + name, x).model
    for timing in benchmark(nets, x, rounds=3 if given.quick else 20, device=given.device):
        yield {"routing": timing.name, **asdict(timing), "throughput_ratio": round(1 / timing.ratio, 3)}


def _routed(given: Setup, recipe: str, x: Tensor) -> Conversion:
    return kdna_convert.convert(given.net, recipe=parse_recipe(recipe), data=x[:32], device=given.device)


def epochs(given: Setup) -> Iterator[Row]:
    """ResNet-56 at 22 % of its parameters by `balanced`, then 30 epochs in what is left of the time."""
    began = time.perf_counter()
    options: Any = {}
    if given.data is None or given.quick:
        model, train, test = "kdna:digits", "kdna:digits/train", "kdna:digits/test"
    else:
        model, _, checkpoint = net_flags("cifar10_resnet56", given.data)[:3]
        train, test = given.data / "cifar10" / "train", given.data / "cifar10" / "test"
        options = {"checkpoint": checkpoint}
    sizes = ["calibration.images=64", "calibration.heldout=64"] if given.quick else ["calibration.images=512"]
    recipe = load_recipe("shared-cp" if given.quick else "balanced", sizes)
    conversion = kdna_convert.convert(
        model, recipe=recipe, data=train, target_params=0.22, device=given.device, **options
    )
    converted = time.perf_counter() - began
    before = kdna_convert.evaluate(conversion, data=test, device=given.device)
    yield {"stage": "converted", "seconds": round(converted, 1), "top1": before.top1, "kl": before.kl}
    count = 1 if given.quick else 30
    how: Any = {"train": "shared", "mixup": 1.0, "batch_size": 128}
    how |= {"precision": "fp32" if given.quick else "bf16"}
    # The shorter of the two: the epochs, or what is left of the time.
    probe = kdna_convert.finetune(conversion, data=train, device=given.device, steps=20, **how).report.finetune
    images = 0.8 * len(digits("train")[0]) if "digits" in str(train) else 0.95 * 20_000
    speed = 1.0 if probe is None else probe.images_per_second
    left = given.limit - (time.perf_counter() - began) - 15
    length = {"epochs": count} if count * images / speed < left else {"seconds": max(left, 5.0)}
    tuned = kdna_convert.finetune(conversion, data=train, device=given.device, **length, **how)
    after = kdna_convert.evaluate(tuned, data=test, device=given.device)
    report = tuned.report.finetune
    measured = {} if report is None else {"steps": report.steps, "images_per_second": report.images_per_second}
    yield {"stage": "tuned", **length, **measured, "top1": after.top1, "kl": after.kl}


PARTS: dict[str, tuple[Callable[[Setup], Iterator[Row]], float]] = {  # and the weight of its share of the time
    "agreement": (agreement, 45),
    "tuning": (tuning, 45),
    "routing": (routing, 45),
    "epochs": (epochs, 75),
}


def conversions(given: Setup, scratch: Path) -> Iterator[tuple[str, list[object]]]:
    """The conversions to time: a name, and the arguments of kdna."""
    nets: dict[str, list[str]] = {"ResNet-18": [RESNET18], "ResNet-50, random weights": [RESNET50]}
    images: object
    if given.quick:
        images, nets = "kdna:digits/train", {"bundled net": ["kdna:digits"]}
    elif given.data is None:
        images = noise_images(scratch / "noise", IMAGES + HELDOUT, 256)
    else:
        images = given.data / "imagenet" / "calibration"
        nets["ResNet-18"] = net_flags("imagenet_resnet18", given.data)
    count, heldout = (64, 32) if given.quick else (IMAGES, HELDOUT)
    split = ["--set", f"calibration.images={count}", "--set", f"calibration.heldout={heldout}"]
    for net, model in nets.items():
        for recipe, (kind, size) in BUDGETS.items():
            budget = ["--recipe", recipe, f"--target-{kind}", size, "--data", images, *split]
            place = ["-o", scratch / "out", "--force"]
            yield f"{net}, {recipe} {size}", ["convert", *model, *budget, "--device", given.device, *place]


def all_parts(given: Setup, minutes: float, results: Path) -> None:
    """Every part in a process of its own, each with its share of the time that is left."""
    deadline = time.monotonic() + 60 * minutes
    about = machine() | {"device": _device_name(given.device), "quick": given.quick}
    with tempfile.TemporaryDirectory() as scratch:
        timed = dict(conversions(given, Path(scratch)))
        weights = {name: weight for name, (_, weight) in PARTS.items()} | dict.fromkeys(timed, 45.0)
        while weights:
            limit = (deadline - time.monotonic()) / sum(weights.values())
            name = next(iter(weights))
            limit *= weights.pop(name)
            try:
                if name in PARTS:
                    _run_part(given, name, limit, results)
                    continue
                report, cost = kdna(*timed[name], limit=limit)
                row = {"part": "conversion", "name": name, **cost.row, "divergence": report["divergence"]}
            except CommandError as error:
                row = {"part": name, "failed": str(error), "limit": round(limit)}
            print(append(results, row | about), flush=True)


def _run_part(given: Setup, name: str, limit: float, results: Path) -> None:
    command = [sys.executable, __file__, "--part", name, "--limit", str(limit), "--device", given.device]
    command += [*([str(given.data)] if given.data else []), *(["--quick"] if given.quick else [])]
    print(run([*command, "--results", str(results)], limit)[0], end="", flush=True)


def one_part(given: Setup, name: str, results: Path) -> None:
    about = machine() | {"device": _device_name(given.device), "quick": given.quick}
    for row in PARTS[name][0](given):
        print(append(results, {"part": name, **row} | about), flush=True)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true", help="tiny nets and sizes")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--part", choices=PARTS, help="this part only, in this process")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of that part")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: no GPU is at hand; --device cpu --quick tries the script itself")
        return
    data = args.data if args.data is not None and args.data.is_dir() else None
    given = Setup(args.device, data, args.quick, args.limit)
    if args.part:
        one_part(given, args.part, args.results)
    else:
        all_parts(given, args.minutes, args.results)


if __name__ == "__main__":
    main()
