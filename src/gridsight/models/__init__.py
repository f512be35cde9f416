"""Every network, one architecture a file; `create` builds one by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gridsight.core.errors import UsageError
from gridsight.core.registry import Registry

MODELS = Registry("model", "gridsight.models")


def create(
    name: str,
    *,
    ndim: int | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    **arguments: Any,
) -> Any:
    """Build the network `name` for `ndim` axes; axes, channels and classes that are not given are the publisher's.

    A wrong name, argument or ndim is a `UsageError` that says what fits.

    >>> net = create("resnet18", ndim=1, in_channels=12, num_classes=5)
    >>> sum(p.numel() for p in net.parameters())
    3851397
    """
    if not isinstance(name, str):
        raise UsageError(f"a network is asked for by its name, such as 'resnet18', not {name!r}")
    MODELS.require(name)
    ndim, _, _ = published_input(name, ndim)
    shape = {"in_channels": in_channels, "num_classes": num_classes}
    given = {key: value for key, value in shape.items() if value is not None}
    for key, value in given.items():
        if not _is_whole(value) or value < 1:
            raise UsageError(f"{key} must be a whole number of at least 1, not {value!r}")
    with refusing(f"{name} cannot be built", given | arguments):
        return MODELS.create(name, ndim=ndim, **given, **arguments)


@contextmanager
def refusing(what: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """What layers raise where an argument is odd becomes a `UsageError` that names all; without any it is a defect."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        if not arguments:
            raise
        values = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        first, _, _ = str(error).partition("\n")
        raise UsageError(f"{what} with {values}: {first}") from error


def default_of(name: str, argument: str) -> Any:
    """What the network `name` is built with where the argument is not given.

    >>> default_of("resnet20", "num_classes")
    10
    """
    import inspect

    entry = MODELS.get(name)
    return entry.arguments.get(argument, inspect.signature(entry.item).parameters[argument].default)


def published_input(name: str, ndim: int | None = None) -> tuple[int, int, tuple[int, ...]]:
    """(ndim, in_channels, spatial) of the publisher, or the same size an axis for another `ndim` that `name` works for.

    >>> published_input("lenet5")
    (2, 1, (32, 32))
    """
    tags = MODELS.get(name).tags
    spatial = tags.get("spatial", (32,))
    if ndim is None:
        ndim = len(spatial) if len(spatial) in tags["ndims"] else tags["ndims"][0]
    elif not _is_whole(ndim) or ndim not in tags["ndims"]:
        raise UsageError(f"{name} works for ndim {', '.join(map(str, tags['ndims']))}, not {ndim!r}")
    return ndim, default_of(name, "in_channels"), tuple(spatial) if len(spatial) == ndim else (spatial[-1],) * ndim


def _is_whole(value: Any) -> bool:
    """Whether a caller gave a whole number; True is one to Python alone."""
    return isinstance(value, int) and not isinstance(value, bool)
