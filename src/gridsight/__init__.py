"""Gridsight: train, explain and ship convolutional networks for signals, images and volumes.

>>> import gridsight
>>> net = gridsight.create("simple_cnn", num_classes=10)

Names are looked up when they are first used, so importing the package imports neither torch nor anything else slow.
"""

from importlib.metadata import version as _version
from typing import Any

__version__ = _version("gridsight")

_VERBS = {
    "train": "train",
    "resume": "resume",
    "evaluate": "eval",
    "predict": "predict",
    "report": "report",
    "check": "check",
    "models": "models",
    "describe": "describe",
    "bench": "bench",
    "explain": "explain",
    "import_checkpoint": "import",
}
_OBJECTS = {
    "create": "gridsight.models",
    "load": "gridsight.artifact.predictor",
    "GridsightError": "gridsight.core.errors",
}

__all__ = ["__version__", *_VERBS, *_OBJECTS]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        from gridsight.verbs import as_function

        found = as_function(_VERBS[name])
    elif name in _OBJECTS:
        from importlib import import_module

        found = getattr(import_module(_OBJECTS[name]), name)
    else:
        raise AttributeError(f"module 'gridsight' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
