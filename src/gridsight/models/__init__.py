"""Every network, one architecture a file; `create` builds one by name."""

from typing import Any

from gridsight.core.registry import Registry

MODELS = Registry("model", "gridsight.models")


def create(name: str, *, ndim: int = 2, in_channels: int = 3, num_classes: int = 1000, **arguments: Any) -> Any:
    """Build the network `name` for `ndim` axes; a wrong name, argument or ndim is a `UsageError` that says what fits.

    >>> net = create("resnet18", ndim=1, in_channels=12, num_classes=5)
    >>> sum(p.numel() for p in net.parameters())
    3868037
    """
    from gridsight.core.errors import UsageError

    MODELS.require(name)
    ndims = MODELS.get(name).tags["ndims"]
    if ndim not in ndims:
        raise UsageError(f"{name} works for ndim {', '.join(map(str, ndims))}, not {ndim}")
    return MODELS.create(name, ndim=ndim, in_channels=in_channels, num_classes=num_classes, **arguments)
