"""The filters of a convolution, as they are: all on one signed scale, so that a weak one looks weak.

What filters of deeper layers have learned their weights do not show: `patches.py` shows what moves them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from gridsight.core.errors import UsageError, nearest
from gridsight.measure.layers import find_module


@dataclass(frozen=True, eq=False)
class Filters:
    """`weights` (filters, C, *kernel) float32; C counts the input channels that one filter reads (one if depthwise).

    `scale` is the largest absolute weight of all: colours go from -scale to scale. `order` has filters by length (the
    root of the sum of squares), longest first. Filter i belongs to group i // (filters / groups).
    """

    layer: str
    kind: str
    weights: Tensor
    groups: int

    @property
    def scale(self) -> float:
        return float(self.weights.abs().max())

    @property
    def lengths(self) -> Tensor:
        return torch.linalg.vector_norm(self.weights.flatten(1), dim=1)

    @property
    def order(self) -> list[int]:
        return [int(i) for i in self.lengths.argsort(descending=True, stable=True)]


def convolutions(net: nn.Module) -> list[str]:
    """The names of a network's convolutions; a network without is a `UsageError`."""
    known = [name for name, module in net.named_modules() if isinstance(module, _ConvNd)]
    if not known:
        raise UsageError(f"{type(net).__name__} has no convolution (nn.Conv1d, 2d, 3d), so it has no filters")
    return known


def filters(net: nn.Module, name: str | None = None) -> Filters:
    """The filters of the convolution `name` (default: the first).

    >>> filters(nn.Sequential(nn.Conv3d(4, 6, 3, groups=2))).weights.shape
    torch.Size([6, 2, 3, 3, 3])
    """
    if isinstance(net, _ConvNd) and name is None:
        name, conv = type(net).__name__, net
    else:
        known = convolutions(net)
        name = known[0] if name is None else name
        found = find_module(net, name)
        if not isinstance(found, _ConvNd):
            inner = [each for each in known if each.startswith(name + ".")]
            hint = "in it are " + ", ".join(inner[:5]) if inner else nearest(name, known)
            raise UsageError(f"layer {name!r} is {type(found).__name__}, no convolution; {hint}")
        conv = found
    if isinstance(conv.weight, UninitializedParameter):
        raise UsageError(f"layer {name!r} has no weights yet: run the network once")
    with torch.no_grad():
        weights = conv.weight.detach().float().cpu().clone()
    if isinstance(conv, _ConvTransposeNd):  # (C, filters / groups, *kernel), the groups along C
        parts = weights.unflatten(0, (conv.groups, -1)).transpose(1, 2)
        weights = parts.flatten(0, 1).contiguous()
    return Filters(name, type(conv).__name__, weights, conv.groups)
