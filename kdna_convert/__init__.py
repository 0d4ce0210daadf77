"""kdna: make a pretrained CNN smaller by sharing kernels across its layers.

This is the Python API; the CLI calls the same functions.

    import kdna_convert as kdna

    conversion = kdna.convert("resnet50", recipe="shared-cp", target_params=0.5, data="images/")
    kdna.save(conversion, "resnet50-half")
    model = kdna.load("resnet50-half")  # still timm's ResNet, with other weights

Nothing heavy is imported before it is used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import KdnaError as KdnaError

if TYPE_CHECKING:
    from .build import build as build
    from .checkpoint import Conversion as Conversion
    from .checkpoint import load as load
    from .checkpoint import save as save
    from .checkpoint import verify as verify
    from .code import code as code
    from .compare import Comparison as Comparison
    from .compare import compare as compare
    from .derive import factor as factor
    from .derive import fold as fold
    from .freezing import freeze as freeze
    from .pipeline import analyze as analyze
    from .pipeline import convert as convert
    from .pipeline import curve as curve
    from .pipeline import evaluate as evaluate
    from .pipeline import plan as plan
    from .recipe import Recipe as Recipe
    from .running import run as run
    from .shrinking import shrink as shrink
    from .specs import DataConfig as DataConfig
    from .specs import Plan as Plan
    from .tuning import finetune as finetune

__version__ = "0.1.0"

_HOME = {
    "Comparison": "compare",
    "Conversion": "checkpoint",
    "DataConfig": "specs",
    "Plan": "specs",
    "Recipe": "recipe",
    "analyze": "pipeline",
    "build": "build",
    "code": "code",
    "compare": "compare",
    "convert": "pipeline",
    "curve": "pipeline",
    "evaluate": "pipeline",
    "factor": "derive",
    "finetune": "tuning",
    "fold": "derive",
    "freeze": "freezing",
    "load": "checkpoint",
    "plan": "pipeline",
    "run": "running",
    "save": "checkpoint",
    "shrink": "shrinking",
    "verify": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOME, "KdnaError", "__version__"])


class _Package(ModuleType):
    """A verb and its file share a name: `kdna_convert.plan` is always the function, never the submodule.

    Importing a submodule sets it as an attribute of its package, which would hide the function from then on.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
