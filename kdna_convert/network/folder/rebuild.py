"""Build the architecture that a converted folder names, without running code that a foreign folder may name.

A folder is data: `subprocess.py:call('...')` in its config must not become a call when somebody loads it. So only
models of timm, torchvision and kdna are built, and functions that the user's own files define. Files inside the folder
and installed packages are never called. Any other model the user builds and passes as `model=`.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from importlib.machinery import PathFinder
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...core.errors import FolderError, ModelError
from ...core.specs import ModelRef
from ...inputs.models.building import build
from ...inputs.models.names import ModelName, parse_name

_DRAWS = frozenset({Tensor.uniform_, Tensor.normal_})
_LIBRARIES = ("timm.models.", "torchvision.models.", "kdna_convert.inputs.digits.", "kdna_convert.api.layouts.")


def rebuild(ref: ModelRef, folder: Path) -> nn.Module:
    """The model that `ref` names, on the CPU, float32, in eval mode, with uninitialized parameters.

    Raises FolderError KD607 if it cannot be built, or must not be built.
    """
    try:
        name = parse_name(ref.name)
        complaint = _complaint(name, folder)
        if complaint is None:
            with _Undrawn():
                model = build(name, pretrained=False)
            return (model if _is_plain(model) else model.to("cpu", torch.float32)).eval()
    except ModelError as error:
        complaint = error.message
    raise FolderError("KD607", f"{folder} was made from {ref.name}: {complaint}. Or build it yourself and pass model=")


def _is_plain(model: nn.Module) -> bool:
    """Whether the model is on the CPU in float32 already: checking is far cheaper than moving it."""
    held = chain(model.parameters(), model.buffers())
    return all(t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point()) for t in held)


class _Undrawn(TorchFunctionMode):
    """Skips random initialization, most of the time of building: stored tensors replace all parameters."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS and isinstance(args[0], nn.Parameter):
            return args[0]
        return func(*args, **(kwargs or {}))


def _complaint(name: ModelName, folder: Path) -> str | None:
    """Why this name must not be built when a folder names it, or None."""
    if name.source in ("timm", "torchvision", "kdna"):
        return "it asks to read a checkpoint while it is built" if "checkpoint_path" in name.kwargs else None
    if name.source == "module" and f"{name.path}.".startswith(_LIBRARIES):
        file = _find_module(name.path)
        return None if file and _defines(file, name.factory) else f"{name.path} defines no model {name.factory}"
    file = Path(name.path).resolve() if name.source == "file" else _find_module(name.path)
    if file is None or not file.is_file():
        return f"{name.path} is not there; go to the directory from which it was converted"
    if file.is_relative_to(folder.resolve()):
        return f"{name.path} lies inside the folder, and nothing inside a folder is run"
    if any(file.is_relative_to(place) for place in _installed()):
        return f"{name.path} belongs to an installed package, which a folder may not call"
    return None if _defines(file, name.factory) else f"{name.path} defines no {name.factory}"


def _defines(file: Path, factory: str) -> bool:
    """Whether the file itself defines this name and does not only import it. The file is parsed, not run."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == factory:
            return True
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == factory for target in targets):
            return True
    return False


def _find_module(module: str) -> Path | None:
    """The file of a module, without importing it."""
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    parts = module.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), places)
        if spec is None:
            return None
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return Path(spec.origin).resolve() if spec is not None and spec.origin else None


def _installed() -> set[Path]:
    """The directories of the standard library and of installed packages."""
    return {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
