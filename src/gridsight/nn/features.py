"""What each stage of a network says of an item, in few numbers: mean and deviation of every channel over the cells."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gridsight.nn import masked
from gridsight.nn.geometry import stage_shapes

LONG = 1 << 12
"""Cells an axis of an input without values that shows the strides of a network."""


def logits_and_features(net: Any, x: Tensor, mask: masked.Mask = None) -> tuple[Tensor, list[Tensor]]:
    """Logits (N, num_classes) of a `Net`, and of every stage (N, 2 C): means of its channels, then their deviations."""
    found = []
    stage = x
    strides = () if mask is None else _strides(net, x.shape[1], x.dim() - 2)
    for number, stage in enumerate(net.forward_stages(x, mask)):
        grid = net.to_grid(stage)
        real = None if mask is None else masked.shrink(mask, strides[number])
        mean = masked.mean(grid, real)
        square = masked.mean((grid - mean.view(*mean.shape, *[1] * (grid.dim() - 2))).square(), real)
        found.append(torch.cat([mean, square.sqrt()], 1))
    return net.forward_head(stage, mask), found


@lru_cache(maxsize=8)
def _strides(net: Any, channels: int, ndim: int) -> tuple[tuple[int, ...], ...]:
    """What every stage has shrunk each axis by, read off an input so long that no other number leaves as many cells."""
    shapes = stage_shapes(net, channels, (LONG,) * ndim)
    return tuple(tuple(round(LONG / cells) for cells in shape[1:]) for shape in shapes)
