"""The architecture: which files may import which rooms and libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kdna_convert"
# Goes into every folder, and is never imported from here.
TRAVELS = PACKAGE / "network" / "folder" / "standalone_loader.py"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path not in (PACKAGE / "__init__.py", TRAVELS))
IN_ROOMS = [path for path in FILES if path != PACKAGE / "__main__.py"]

REPORTS = sorted(path.stem for path in (PACKAGE / "cli" / "report").glob("[!_]*.py"))

# Each room, from the ground up, and the rooms below that its files may import.
ROOMS = {
    "core": (),
    "inputs": ("core",),
    "schemes": ("core",),
    "routing": ("core",),
    "codecs": ("core",),
    "tasks": ("core",),
    "network": ("core", "inputs", "schemes", "routing", "codecs"),
    "stages": ("core", "inputs", "schemes", "routing", "codecs", "tasks", "network"),
    "html": ("core", "inputs", "schemes", "routing", "codecs", "tasks", "network", "stages"),
    "api": ("core", "inputs", "schemes", "routing", "codecs", "tasks", "network", "stages", "html"),
    "explore": ("core", "inputs", "schemes", "routing", "codecs", "tasks", "network", "stages", "html", "api"),
    "cli": ("core", "inputs", "schemes", "routing", "codecs", "tasks", "network", "stages", "api", "html", "explore"),
}
# A stage imports earlier stages only.
STAGES = ("analyze", "plan", "convert", "repair", "evaluate", "finetune", "code", "export")
# What the loader that travels imports for entropy-coded folders, and only once it meets one.
FOR_ENTROPY = {"numpy", "constriction"}
# Library -> the only files that may import it.
DOORS = {
    "safetensors": ["network/folder/*.py", "core/tensorfile.py", "inputs/models/weights.py"],  # ours, and foreign ones
    "sklearn": ["stages/analyze/clustering.py", "inputs/digits.py"],
    "huggingface_hub": ["api/hub.py"],
    "timm": [
        "inputs/models/*.py",
        "inputs/data/*.py",
        "api/layouts.py",
        "api/build.py",
        "stages/finetune/rate.py",
        "stages/finetune/average.py",
        "stages/export/timm_folder.py",
    ],
    "webdataset": ["inputs/data/tar_shards.py"],
    "pyarrow": ["inputs/data/parquet_shards.py"],
    "fsspec": ["inputs/data/parquet_shards.py"],
    "accelerate": ["stages/finetune/engine.py", "core/processes.py"],
    "torchvision": ["inputs/models/*.py", "inputs/data/*.py"],
    "tltorch": ["api/compare/tools/tensorly.py"],
    "aimet_torch": ["api/compare/tools/aimet.py"],
    "torch_pruning": ["api/compare/tools/pruning.py"],
    "onnxruntime": ["api/compare/tools/onnxruntime.py", "stages/export/onnx*.py", "stages/latency/onnx_runtime.py"],
    "executorch": ["stages/export/executorch.py"],
    "litert_torch": ["stages/export/litert.py"],
    "ai_edge_litert": ["stages/export/litert.py"],
    "ncnn": ["stages/export/ncnn.py"],
    "pnnx": ["stages/export/ncnn.py"],
    "coremltools": ["stages/export/coreml.py"],
    "openvino": ["stages/export/openvino*.py", "stages/latency/openvino_runtime.py"],
    "nncf": ["stages/export/openvino_int8.py"],
    "nncodec": ["api/compare/tools/nncodec.py"],
    "torchmetrics": ["tasks/image.py", "tasks/detect.py", "tasks/sequence.py"],
    "constriction": ["codecs/entropy.py", "codecs/indices.py"],
    "matplotlib": ["html/chart.py", "html/parts/*.py"],
    "jinja2": ["html/part.py"],
    "PIL": ["inputs/data/*.py", "html/thumbnail.py"],
    "nicegui": ["explore/server.py", "explore/steering_page.py"],
    "uvicorn": ["explore/server.py"],
    "fastapi": ["explore/server.py"],
    "ray": ["api/sweeping/ray_cluster.py"],
    "submitit": ["api/sweeping/slurm_queue.py"],
    # the survey only asks whether a layer has one already
    "torch.nn.utils.parametrize": ["network/derive.py", "stages/analyze/survey.py", "stages/export/compact_weights.py"],
    "typer": ["cli/*.py", "cli/commands/*.py"],
    "rich": ["cli/*.py", "cli/commands/*.py", "cli/report/*.py"],
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; our own as kdna_convert.<module>."""
    package = path.parent.relative_to(PACKAGE.parent).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def places(path: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports, as paths: ("stages", "plan", "knapsack")."""
    return {tuple(name.split(".")[1:]) for name in imports(path) if name.startswith("kdna_convert.")}


def test_every_directory_of_the_package_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("assets", "__pycache__")}
    assert folders == set(ROOMS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", IN_ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_rooms_below_its_own(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    above = {reached[0] for reached in places(path) if reached[0] in ROOMS} - {room, *ROOMS[room]}
    assert not above, f"{room} reaches up to {sorted(above)}"


def test_no_file_under_tests_imports_a_test_module() -> None:
    """What tests share is in tests/support."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    assert Path(__file__) in files
    among = {path.name: sorted(name for name in imports(path) if ".test_" in f".{name}") for path in files}
    assert {name: modules for name, modules in among.items() if modules} == {}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_earlier_stages_only(stage: str) -> None:
    earlier = STAGES[: STAGES.index(stage) + 1]
    for path in (PACKAGE / "stages" / stage).rglob("*.py"):
        reached = {place[1] for place in places(path) if place[0] == "stages" and len(place) > 1}
        assert reached <= set(earlier), f"{path.name} reaches {sorted(reached - set(earlier))}"


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_reached_through_its_door_only(library: str) -> None:
    def through(path: Path) -> bool:
        return any(fnmatch(str(path.relative_to(PACKAGE)), door) for door in DOORS[library])

    users = {path for path in FILES for name in imports(path) if f"{name}.".startswith(f"{library}.")}
    assert all(through(path) for path in users), sorted(str(path) for path in users if not through(path))


def test_the_loader_in_a_folder_needs_torch_alone() -> None:
    path = TRAVELS
    libraries = {name.split(".")[0] for name in imports(path)}
    assert libraries - sys.stdlib_module_names <= {"torch", *FOR_ENTROPY}
    at_once = {alias.name for node in ast.parse(path.read_text()).body for alias in getattr(node, "names", [])}
    assert not at_once & FOR_ENTROPY


@pytest.mark.parametrize(
    ("light", "heavy"),
    [
        ("kdna_convert.cli.app", {"pydantic", "yaml", "numpy", "torch", "timm", "torchvision", "scipy", "sklearn"}),
        ("kdna_convert.inputs.recipe", {"numpy", "torch", "timm", "torchvision", "scipy", "sklearn"}),
        (
            f"kdna_convert.cli.report.{', kdna_convert.cli.report.'.join(REPORTS)}",
            {"numpy", "torch", "timm", "scipy", "sklearn"},
        ),
    ],
    ids=["cli", "recipe", "report"],
)
def test_modules_that_must_start_fast_import_nothing_heavy(light: str, heavy: set[str]) -> None:
    code = f"import sys, {light}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
