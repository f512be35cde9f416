"""Carrying trained weights to another number of axes: one more (inflation) or one less (summing an axis).

Inflation puts each kernel in the middle slice of the new first axis and zeros elsewhere; a flatten head reads the
middle slice alone. On an input that is constant along the new axis the network then answers exactly as before, at any
size, because no padded zero is ever weighted. (Repeating the kernel and dividing by its length, as I3D does,
arXiv:1705.07750, is wrong wherever the window reaches the zero padding, which in a deep network is nearly everywhere.)
Summing an axis is exact for inputs constant along it, but for the zeros that padded its ends.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gridsight.core.errors import UsageError
from gridsight.nn.geometry import stage_shapes
from gridsight.nn.net import Net


def inflate(source: Net, target: Net) -> Net:
    """`target` with the weights of `source`, the same network with one axis less; the new axis is the first."""

    def widen(weight: Tensor, like: Tensor) -> Tensor:
        wide = torch.zeros_like(like)
        wide[:, :, like.shape[2] // 2] = weight.to(like)
        return wide

    return _carry(source, target, widen)


def sum_axis(source: Net, target: Net, axis: int = 0) -> Net:
    """`target` with the weights of `source`, the same network with one axis more, summed over that `axis`."""
    return _carry(source, target, lambda weight, like: weight.sum(2 + axis).to(like))


def _carry(source: Net, target: Net, change: Callable[[Tensor, Tensor], Tensor]) -> Net:
    """Copy every tensor of `source` whose shape `target` shares; `change` kernels and the rows of a flatten head."""
    old, new = source.state_dict(), target.state_dict()
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())
        raise UsageError(f"these are not the same network: only one of them has {', '.join(odd[:3])}")
    for key, like in new.items():
        weight = old[key]
        if weight.dim() == 2 and weight.shape != like.shape:  # a flatten head: (out, C x cells), cells as a kernel
            before, after = _last_stage(source), _last_stage(target)
            carried = change(weight.unflatten(1, before), like.unflatten(1, after)).flatten(1)
        else:
            carried = weight if weight.dim() == like.dim() else change(weight, like)
        if carried.shape != like.shape:
            raise UsageError(f"{key}: {tuple(weight.shape)} does not fit {tuple(like.shape)}")
        new[key] = carried
    target.load_state_dict(new)
    return target


def _last_stage(net: Net) -> tuple[int, ...]:
    """(C, *cells) that a flatten head reads."""
    if net.spatial is None:
        raise UsageError(f"{type(net).__name__} has a head that depends on the input size but no `spatial`")
    first = next(p for p in net.parameters() if p.dim() > 2)
    return stage_shapes(net, first.shape[1], net.spatial)[-1]
