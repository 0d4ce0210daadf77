"""kdna: make a pretrained CNN smaller by sharing kernels across its layers.

This is the Python API; the CLI calls the same functions.

    import kdna_convert as kdna

    conversion = kdna.convert("resnet50", recipe="shared-cp", target_params=0.5, data="images/")
    kdna.save(conversion, "resnet50-half")
    model = kdna.load("resnet50-half", folded=True)  # still timm's ResNet, with other weights

Nothing heavy is imported before it is used. Nothing is printed: pass `progress=True` for a bar, or enable the logger
"kdna_convert" at level INFO.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .core.errors import KdnaError as KdnaError

if TYPE_CHECKING:
    from .api.analyze import analyze as analyze
    from .api.bank import bank as bank
    from .api.build import build as build
    from .api.code import code as code
    from .api.compare import Comparison as Comparison
    from .api.compare import compare as compare
    from .api.convert import convert as convert
    from .api.curve import curve as curve
    from .api.evaluate import evaluate as evaluate
    from .api.export import export as export
    from .api.finetune import finetune as finetune
    from .api.freeze import freeze as freeze
    from .api.hub import from_pretrained as from_pretrained
    from .api.hub import push_to_hub as push_to_hub
    from .api.hub import save_pretrained as save_pretrained
    from .api.plan import plan as plan
    from .api.profile import profile as profile
    from .api.report import report as report
    from .api.run import run as run
    from .api.shrink import shrink as shrink
    from .api.sweep import sweep as sweep
    from .api.verify import verify as verify
    from .core.specs import DataConfig as DataConfig
    from .core.specs import Plan as Plan
    from .inputs.recipe import Recipe as Recipe
    from .network.derive import factor as factor
    from .network.derive import fold as fold
    from .network.derive import unfactored as unfactored
    from .network.folder import Conversion as Conversion
    from .network.folder import diff as diff
    from .network.folder import load as load
    from .network.folder import open_folder as open_folder
    from .network.folder import patch as patch
    from .network.folder import save as save

__version__ = "0.1.0"
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOME = {
    "Comparison": "api.compare",
    "Conversion": "network.folder",
    "DataConfig": "core.specs",
    "Plan": "core.specs",
    "Recipe": "inputs.recipe",
    "analyze": "api.analyze",
    "bank": "api.bank",
    "build": "api.build",
    "code": "api.code",
    "compare": "api.compare",
    "convert": "api.convert",
    "curve": "api.curve",
    "diff": "network.folder",
    "evaluate": "api.evaluate",
    "export": "api.export",
    "factor": "network.derive",
    "finetune": "api.finetune",
    "fold": "network.derive",
    "freeze": "api.freeze",
    "from_pretrained": "api.hub",
    "load": "network.folder",
    "open_folder": "network.folder",
    "patch": "network.folder",
    "plan": "api.plan",
    "profile": "api.profile",
    "push_to_hub": "api.hub",
    "report": "api.report",
    "run": "api.run",
    "save": "network.folder",
    "save_pretrained": "api.hub",
    "shrink": "api.shrink",
    "sweep": "api.sweep",
    "unfactored": "network.derive",
    "verify": "api.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOME, "KdnaError", "__version__"])
