"""The architecture as a test: who may import whom, and which file is the only door to which library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kdna_convert"
TRAVELS = PACKAGE / "assets"  # what goes into the folders that kdna writes, and is never imported from here
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py" and path.parent != TRAVELS)

REPORTS = sorted(path.stem for path in (PACKAGE / "report").glob("[!_]*.py"))

# From the ground up. A file imports from its own floor or from those below it.
FLOORS = [
    {"errors"},
    {"specs", "filesize"},
    {"linalg", "tensorfile", "patches", "processes", "heap"},
    {
        "schemes",
        "routing",
        "codecs",
        "directions",
        "similarity",
        "clustering",
        "recipe",
        "statistics",
        "datafree",
        "survey",
    },
    {"derive", "chain", "fitting", "stored", "container", "totals", "models", "data", "checkpoint", "blocks", "prefix"},
    {
        "analyze",
        "database",
        "plan",
        "planfile",
        "momentsfile",
        "edited",
        "curve",
        "drop",
        "convert",
        "routes",
        "repair",
        "coding",
        "nesting",
        "cutting",
    }
    | {"finetune", "evaluate", "benchmark"},
    {
        "compare",
        "job",
        "planning",
        "mending",
        "healing",
        "workfolder",
        "converting",
        "pipeline",
        "running",
        "shrinking",
        "freezing",
        "exporting",
        "tuning",
        "code",
        "demo",
        "digits",
        "layouts",
        "build",
    },
    {"report"},
    {"cli", "commands", "__main__"},
]
# What the loader that travels imports for entropy-coded folders, and only once it meets one.
FOR_ENTROPY = {"numpy", "constriction"}
# Library -> the only files that may import it.
DOORS = {
    "safetensors": [
        "checkpoint.py",
        "tensorfile.py",
        "models/weights.py",
    ],  # ours out and in, and foreign checkpoints in
    "sklearn": ["clustering.py", "digits.py"],
    "timm": [
        "models/*.py",
        "layouts.py",
        "build.py",
        "data/*.py",
        "finetune/rate.py",
        "finetune/average.py",
        "routing/modulation.py",
    ],
    "accelerate": ["finetune/engine.py", "processes.py"],
    "torchvision": ["models/*.py", "data/*.py"],
    "tltorch": ["compare/tools/tensorly.py"],
    "aimet_torch": ["compare/tools/aimet.py"],
    "torch_pruning": ["compare/tools/pruning.py"],
    "onnxruntime": ["compare/tools/onnxruntime.py", "exporting.py"],
    "nncodec": ["compare/tools/nncodec.py"],
    "constriction": ["codecs/entropy.py", "codecs/indices.py"],
    "matplotlib": ["report/*.py"],
    "torch.nn.utils.parametrize": ["derive.py", "survey.py"],  # the survey only asks whether a layer has one already
    "typer": ["cli.py", "commands/*.py"],
    "rich": ["cli.py", "commands/*.py", "report/*.py"],
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; our own as kdna_convert.<module>."""
    package = ["kdna_convert", *path.parent.relative_to(PACKAGE).parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def floor(module: str) -> int:
    found = [number for number, names in enumerate(FLOORS) if module in names]
    assert found, f"{module} is new: give it a floor in FLOORS"
    return found[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_own_floor_or_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    below = {name for names in FLOORS[: floor(own) + 1] for name in names}
    reached = {name.split(".")[1] for name in imports(path) if name.startswith("kdna_convert.")}
    modules = {name for name in reached if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}
    assert modules <= below, f"{own} reaches up to {sorted(modules - below)}"


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_reached_through_its_door_only(library: str) -> None:
    def through(path: Path) -> bool:
        return any(fnmatch(str(path.relative_to(PACKAGE)), door) for door in DOORS[library])

    users = {path for path in FILES for name in imports(path) if f"{name}.".startswith(f"{library}.")}
    assert all(through(path) for path in users), sorted(str(path) for path in users if not through(path))


@pytest.mark.parametrize("path", sorted(TRAVELS.glob("*.py")), ids=lambda path: path.name)
def test_what_travels_in_a_folder_needs_torch_alone(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imports(path)}
    assert libraries - sys.stdlib_module_names <= {"torch", *FOR_ENTROPY}
    at_once = {alias.name for node in ast.parse(path.read_text()).body for alias in getattr(node, "names", [])}
    assert not at_once & FOR_ENTROPY


@pytest.mark.parametrize(
    ("light", "heavy"),
    [
        ("kdna_convert.cli", {"pydantic", "yaml", "numpy", "torch", "timm", "torchvision", "scipy", "sklearn"}),
        ("kdna_convert.recipe", {"numpy", "torch", "timm", "torchvision", "scipy", "sklearn"}),
        (
            f"kdna_convert.report.{', kdna_convert.report.'.join(REPORTS)}",
            {"numpy", "torch", "timm", "scipy", "sklearn"},
        ),
    ],
    ids=["cli", "recipe", "report"],
)
def test_what_must_start_fast_imports_nothing_heavy(light: str, heavy: set[str]) -> None:
    code = f"import sys, {light}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
