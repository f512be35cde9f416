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
from gridsight.nn.blocks import FlatLinear
from gridsight.nn.geometry import stage_shapes
from gridsight.nn.net import Net


def inflate(source: Net, target: Net) -> Net:
    """`target` with the weights of `source`, the same network with one axis less; the new axis is the first."""

    def widen(weight: Tensor, like: Tensor) -> Tensor:
        if weight.shape != like[:, :, 0].shape:
            return weight  # refused below; assigning would repeat a kernel of one tap
        wide = torch.zeros_like(like)
        # of an even kernel the tap that reads the cell itself (`even_conv`)
        wide[:, :, (like.shape[2] - 1) // 2] = weight.to(like)
        return wide

    def widen_head(weight: Tensor, like: Tensor, channels: int) -> Tensor:
        slices = like.shape[1] // weight.shape[1]
        return widen(weight.unflatten(1, (channels, -1)), like.unflatten(1, (channels, slices, -1))).flatten(1)

    return _carry(source, target, widen, widen_head)


def sum_axis(source: Net, target: Net) -> Net:
    """`target` with the weights of `source`, the same network with one axis more, summed over its first axis."""

    def narrow(weight: Tensor, like: Tensor) -> Tensor:
        return weight.sum(2).to(like)

    def narrow_head(weight: Tensor, like: Tensor, channels: int) -> Tensor:
        slices = weight.shape[1] // like.shape[1]
        return narrow(weight.unflatten(1, (channels, slices, -1)), like).flatten(1)

    return _carry(source, target, narrow, narrow_head)


def _carry(
    source: Net,
    target: Net,
    kernel: Callable[[Tensor, Tensor], Tensor],
    head: Callable[[Tensor, Tensor, int], Tensor],
) -> Net:
    """Copy the tensors of `source` to `target`, those of kernels and of a flatten head through the given changes."""
    old, new = source.state_dict(), target.state_dict()
    if old.keys() != new.keys():
        odd = sorted(old.keys() ^ new.keys())
        raise UsageError(f"these are not the same network: only one of them has {', '.join(odd[:3])}")
    for key, like in new.items():
        weight = old[key]
        if weight.dim() != like.dim():
            weight = kernel(weight, like)
        elif weight.dim() == 2 and len(weight) == len(like) and weight.shape != like.shape:
            weight = head(weight, like, _channels_of(source, key))
        if weight.shape != like.shape:
            raise UsageError(f"{key}: {tuple(old[key].shape)} does not become {tuple(like.shape)}")
        new[key] = weight
    target.load_state_dict(new)
    return target


def _channels_of(net: Net, key: str) -> int:
    """Channels that the flatten head with this weight reads cell by cell: its own, else those of the last stage."""
    layer = net.get_submodule(key.rpartition(".")[0])
    if isinstance(layer, FlatLinear):
        return layer.channels
    first = next(p for p in net.parameters() if p.dim() > 2)
    # the number of channels is the same at any size that is large enough to run
    spatial = net.spatial or (64,) * (first.dim() - 2)
    return stage_shapes(net, first.shape[1], spatial)[-1][0]
