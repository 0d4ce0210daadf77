"""Build the nn.Module that a MODEL names, by timm, torchvision, kdna or the user's own factory."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from ...core.errors import KdnaError, ModelError, cause
from ..digits import WEIGHTS, digits_net
from .names import ModelName
from .unwrapping import unwrapped
from .weights import fit_weights, read_state_dict

# The nets that come with kdna: name -> (factory, trained weights).
BUNDLED: dict[str, tuple[Callable[..., nn.Module], Path]] = {"digits": (digits_net, WEIGHTS)}
_PACKAGE = __name__.partition(".")[0]


def build(name: ModelName, pretrained: bool) -> nn.Module:
    """The architecture with pretrained weights, or with random ones, the same in every run.

    Weights are pretrained only if neither the argument nor the name, as in NAME(pretrained=False), says otherwise.

    Raises:
        ModelError: KD301 (no such model), KD302 (it cannot be built), KD305 (its pretrained weights cannot be fetched).
    """
    try:
        model = _build(name, pretrained)
    except KdnaError:
        raise
    except Exception as error:  # a factory is user code and may raise anything
        raise _failure(name, pretrained, error) from error
    if not isinstance(model, nn.Module):
        raise ModelError("KD302", f"{name.text} returned {type(model).__name__}, not a torch.nn.Module")
    return unwrapped(model)


def _build(name: ModelName, pretrained: bool) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed every GPU's generator
        return _BUILDERS[name.source](name, pretrained)


def _failure(name: ModelName, pretrained: bool, error: Exception) -> ModelError:
    if name.path.startswith(("hf-hub:", "hf_hub:")) and isinstance(error, OSError):
        way_out = "check the name and the connection, or name the architecture and pass --checkpoint FILE"
        return ModelError("KD305", f"{name.text}: {cause(error)}; {way_out}")
    if pretrained and name.source in ("timm", "torchvision"):
        try:
            _build(name, False)
        except Exception as without:  # noqa: BLE001 - any failure without weights is the better explanation
            error = without
        else:
            way_out = f"pass --checkpoint FILE, or use random weights: {_with_argument(name.text, 'pretrained=False')}"
            return ModelError("KD305", f"{name.text}: no pretrained weights ({cause(error)}); {way_out}")
    return ModelError("KD302", f"{name.text} cannot be built: {cause(error)}{_place(name, error)}")


def _place(name: ModelName, error: Exception) -> str:
    """The line of the user's file that raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    known = name.source == "file" and [frame for frame in frames if Path(frame.filename) == Path(name.path).resolve()]
    return f" ({name.path}, line {known[-1].lineno})" if known else ""


def _timm(name: ModelName, pretrained: bool) -> nn.Module:
    kwargs, pretrained = _arguments(name, pretrained)
    if ":" not in name.path:
        architecture, _, tag = name.path.partition(".")
        if not timm.is_model(architecture):
            raise _unknown("timm", name.path, timm.list_models())
        tagged = timm.list_models(f"{architecture}.*", include_tags=True) if tag else [name.path]
        if name.path not in tagged:
            raise _unknown("timm", name.path, tagged)
    model: nn.Module = timm.create_model(name.path, pretrained=pretrained, **kwargs)
    return model


def _torchvision(name: ModelName, pretrained: bool) -> nn.Module:
    if name.path not in torchvision.models.list_models():
        raise _unknown("torchvision", name.path, torchvision.models.list_models())
    kwargs, pretrained = _arguments(name, pretrained)
    if pretrained:
        kwargs.setdefault("weights", "DEFAULT")
    else:
        kwargs["weights"] = None
        if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name.path)).parameters:
            kwargs["weights_backbone"] = None  # detection and segmentation nets would download a backbone
    model: nn.Module = torchvision.models.get_model(name.path, **kwargs)
    return model


def _kdna(name: ModelName, pretrained: bool) -> nn.Module:
    if name.path not in BUNDLED:
        names = ", ".join(f"kdna:{known}" for known in BUNDLED)
        raise ModelError("KD301", f"kdna has no bundled net {name.path!r}; use {names}")
    kwargs, pretrained = _arguments(name, pretrained)
    factory, weights = BUNDLED[name.path]
    model = factory(**kwargs)
    return fit_weights(model, read_state_dict(str(weights)), str(weights)) if pretrained else model


def _file(name: ModelName, pretrained: bool) -> Any:
    path = Path(name.path).resolve()
    if not path.is_file():
        raise ModelError("KD302", f"{name.path}: no such file")
    with _importable(path.parent):
        return _call(_executed(path), name, pretrained)


def _executed(path: Path) -> ModuleType:
    """The file as a module, the same object until the file changes, so that its classes are the same too.

    The module's name has a hash of the file: dataclasses and pickle find a class by it, also in another process. Raises
    ModelError KD302 if it is not a Python file.
    """
    digest = hashlib.sha256(bytes(path) + path.read_bytes()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"kdna_model_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise ModelError("KD302", f"{path}: not a Python file")
    if spec.name in sys.modules:
        return sys.modules[spec.name]
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        with _exits_refused(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def module_of(name: ModelName) -> ModuleType:
    """The module of a name with a file or a module. Its code is run."""
    if name.source == "file":
        path = Path(name.path).resolve()
        with _importable(path.parent):
            return _executed(path)
    with _importable(Path.cwd()), _exits_refused(name.path):
        return importlib.import_module(name.path)


def _module(name: ModelName, pretrained: bool) -> Any:
    own = name.path.startswith(f"{_PACKAGE}.")
    # a console script, unlike `python -m`, does not search the current directory; kdna's own modules need nothing there
    with nullcontext() if own else _importable(Path.cwd()):
        try:
            with _exits_refused(name.path):
                module = importlib.import_module(name.path)
        except ModuleNotFoundError as error:
            sources = "timm:, torchvision:, kdna:, hf-hub:, local-dir: or an importable module"
            raise ModelError("KD302", f"{name.text}: {error.msg}; before the colon write {sources}") from error
        return _call(module, name, pretrained)


def _call(module: ModuleType, name: ModelName, pretrained: bool) -> Any:
    try:
        factory = attrgetter(name.factory)(module)
    except AttributeError as error:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = _did_you_mean(name.factory, public)
        raise ModelError("KD302", f"{name.path} has no {name.factory}{near}") from error
    kwargs = dict(name.kwargs)
    if "pretrained" in kwargs and not pretrained:
        kwargs["pretrained"] = False
    with _exits_refused(name.path):
        return factory(*name.args, **kwargs)


_BUILDERS: dict[str, Callable[[ModelName, bool], Any]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "kdna": _kdna,
    "file": _file,
    "module": _module,
}


@contextmanager
def _exits_refused(code: str | Path) -> Iterator[None]:
    """Turn an exit of the user's code, which would end kdna without a word, into ModelError KD302."""
    try:
        yield
    except SystemExit as error:
        way_out = "remove the call, or put it below `if __name__ == '__main__':`"
        raise ModelError("KD302", f"{code} ends the program by sys.exit; {way_out}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Search `folder` first for imports, as for a script in it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _arguments(name: ModelName, pretrained: bool) -> tuple[dict[str, Any], bool]:
    kwargs = dict(name.kwargs)
    return kwargs, bool(kwargs.pop("pretrained", True)) and pretrained


def _with_argument(text: str, argument: str) -> str:
    return f"{text[:-1]}, {argument})" if text.endswith(")") else f"{text}({argument})"


def _unknown(source: str, name: str, known: Iterable[str]) -> ModelError:
    return ModelError("KD301", f"{source} has no model {name!r}{_did_you_mean(name, known)}")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
