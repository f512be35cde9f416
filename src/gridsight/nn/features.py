"""What each stage of a network says of an item, in few numbers: mean and deviation of every channel over the cells."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gridsight.nn import masked
from gridsight.nn.geometry import stage_shapes

LONG = {1: 1 << 30, 2: 1 << 15, 3: 1 << 12}
"""Cells an axis of an input without values that shows the strides of a network: more than twice the square of any.
What attends from each cell to each other must still have less than 2^63 pairs."""


class Features:
    """Of a `Net` that takes `in_channels` over `ndim` axes."""

    def __init__(self, net: Any, in_channels: int, ndim: int) -> None:
        self.net, self.in_channels, self.ndim = net, in_channels, ndim

    def __call__(self, x: Tensor, mask: masked.Mask = None) -> tuple[Tensor, list[Tensor]]:
        """Logits (N, num_classes), and of every stage (N, 2 C): means of its channels, then their deviations."""
        found, stage = [], x
        for number, stage in enumerate(self.net.forward_stages(x, mask)):
            grid = self.net.to_grid(stage)
            real = None if mask is None else masked.shrink(mask, self.strides[number])
            found.append(_summary(grid, real))
        return self.net.forward_head(stage, mask), found

    @cached_property
    def strides(self) -> list[tuple[int, ...]]:
        """What every stage has shrunk each axis by: no other number leaves as many cells of so long an input."""
        cells = LONG[self.ndim]
        shapes = stage_shapes(self.net, self.in_channels, (cells,) * self.ndim)
        return [tuple(round(cells / left) for left in shape[1:]) for shape in shapes]


def _summary(x: Tensor, mask: masked.Mask) -> Tensor:
    """(N, C, *spatial) -> (N, 2 C): means of the channels over the real cells, then their deviations."""
    if mask is None:
        # in the order in which it lies, so that nothing is copied: of a batch four times as fast as over all axes
        last = x.dim() > 3 and not x.is_contiguous()
        flat, cells = (x.movedim(1, -1).flatten(1, -2), 1) if last else (x.flatten(2), 2)
        mean = flat.mean(cells, keepdim=True)
        off = flat - mean
        off = off.square() if off.requires_grad else off.mul_(off)
        return torch.cat([mean.flatten(1), off.mean(cells).sqrt()], 1)
    mean = masked.mean(x, mask)
    square = masked.mean((x - mean.view(*mean.shape, *[1] * (x.dim() - 2))).square(), mask)
    return torch.cat([mean, square.sqrt()], 1)
