"""Every verb, one a file: its frozen settings and one function that the command line and Python share.

A verb is a function `(settings, console) -> result`; the result's `exit_code`, when it has one, ends the process.
Files here must import neither torch nor NumPy at the top: `--help` and wrong options answer without them.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from gridsight.core.registry import Registry

VERBS = Registry("verb", "gridsight.verbs")


def as_function(verb: str) -> Callable[..., Any]:
    """The verb as a Python function with its settings as arguments: `train("digits", epochs=3)`.

    It is silent unless a `console` is given. The signature and the docstring are those of the settings.
    """
    from gridsight.core.console import Console
    from gridsight.core.errors import UsageError
    from gridsight.core.settings import make

    entry = VERBS.get(verb)
    kind = entry.tags["settings"]
    fields = [field for field in dataclasses.fields(kind) if field.name != "json"]
    by_position = [field.name for field in fields if field.metadata.get("positional")]

    def call(*values: Any, console: Console | None = None, **options: Any) -> Any:
        if len(values) > len(by_position):
            raise UsageError(f"gridsight.{verb} takes {', '.join(by_position)} by position, and the rest by name")
        given = dict(zip(by_position, values, strict=False)) | options
        return entry.item(make(kind, given, f"gridsight.{verb}"), console or Console(quiet=True))

    call.__name__ = call.__qualname__ = entry.item.__name__
    call.__doc__ = kind.__doc__
    call.__signature__ = _signature(fields)  # type: ignore[attr-defined]
    return call


def _signature(fields: "list[dataclasses.Field[Any]]") -> inspect.Signature:
    parameters = []
    for field in fields:
        by_position = field.metadata.get("positional", False)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if by_position else inspect.Parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=field.type))
    return inspect.Signature(parameters)
