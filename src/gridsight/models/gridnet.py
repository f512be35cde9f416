"""GridNet: the network that `gridsight train` takes when none is named; this project's own, small on purpose.

A stage is: convolution -> max pool -> norm -> ReLU, then residual blocks of two convolutions (the order of ResNet-9,
myrtle.ai "How to train your ResNet", 2018; blocks after He et al., arXiv:1512.03385, without their last ReLU). The
head averages the last stage into `grid` cells an axis and reads them with one linear layer, so that *where* something
is can count: one cell instead of six loses 10 points on DNA splice junctions. The recipe picks the arguments."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.nn.blocks import PerStage, per_stage, same_conv
from gridsight.nn.nd import Nd, OneOrEach, he_init
from gridsight.nn.net import Net


class Block(nn.Module):
    """x + relu(norm(conv(relu(norm(conv(x)))))): (N, width, *spatial) to the same shape."""

    def __init__(self, nd: Nd, width: int, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.norm1 = same_conv(nd, width, width, kernel), nd.BatchNorm(width)
        self.conv2, self.norm2 = same_conv(nd, width, width, kernel), nd.BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return x + self.norm2(self.conv2(y)).relu()


class Stage(nn.Module):
    """Convolution (stride), max pool, norm, ReLU, then `blocks` residual blocks; an axis shrinks by stride x pool."""

    def __init__(self, nd: Nd, c_in: int, width: int, blocks: int, kernel: Any, stride: Any, pool: Any) -> None:
        super().__init__()
        self.conv, self.norm = same_conv(nd, c_in, width, kernel, stride), nd.BatchNorm(width)
        # ceil_mode keeps the last, incomplete window of an odd size; pooling before the norm leaves it less to do
        self.pool = nd.MaxPool(pool, ceil_mode=True) if max(pool) > 1 else nn.Identity()
        self.blocks = nn.Sequential(*(Block(nd, width, kernel) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.norm(self.pool(self.conv(x))).relu())


@MODELS.register(
    "gridnet",
    ndims=(1, 2, 3),
    paper="gridsight's default network",
    published=None,
    parameters_published=None,
    spatial=(32, 32),
    masked=False,
    unmasked="zero padding, batch norm and the pooling into cells would read what lies beyond a mask",
)
class GridNet(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    `widths` are the channels of each stage; `kernels`, `strides` (of a stage's first convolution) and `pools` are one
    int for all, or one entry a stage (an int, or one int an axis); `blocks` are residual blocks a stage. `grid` cells
    an axis reach the linear head (1: global mean); `dropout` is applied to them. Every axis must keep `grid` cells
    after all strides and pools, else the input is a `UsageError`.
    """

    small: ClassVar[dict[str, object]] = {
        "widths": (8, 16, 16),
        "blocks": (0, 1, 0),
        "kernels": (5, 3, 3),
        "strides": (2, 1, 1),
        "pools": (1, 2, 1),
        "grid": 2,
    }

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 128),
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 10,
        blocks: int | tuple[int, ...] = (0, 1, 0, 1),
        kernels: PerStage = 3,
        strides: PerStage = 1,
        pools: PerStage = (1, 2, 2, 2),
        grid: OneOrEach = 1,
        dropout: float = 0.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.standardise = standardise
        kernel, stride, pool = (
            [nd.each(entry) for entry in per_stage(value, len(widths), name)]
            for name, value in (("kernels", kernels), ("strides", strides), ("pools", pools))
        )
        depth = per_stage(blocks, len(widths), "blocks")
        self.grid = nd.each(grid)
        self.shrinks = [pair for each in zip(stride, pool, strict=True) for pair in each]
        self.stages = nn.ModuleList(
            Stage(nd, c_in, width, depth[i], kernel[i], stride[i], pool[i])
            for i, (c_in, width) in enumerate(pairwise((in_channels, *widths)))
        )
        self.cells = nd.AdaptiveAvgPool(self.grid)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1] * math.prod(self.grid), num_classes)
        he_init(self)

    def minimum(self) -> tuple[int, ...]:
        """The smallest input size an axis: every stride and pool rounds up, and `grid` cells must be left."""
        low = list(self.grid)
        for shrink in reversed(self.shrinks):
            low = [(cells - 1) * factor + 1 for cells, factor in zip(low, shrink, strict=True)]
        return tuple(low)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        if any(size < low for size, low in zip(x.shape[2:], self.minimum(), strict=True)):
            raise UsageError(f"gridnet with these arguments needs {self.minimum()} cells, not {tuple(x.shape[2:])}")
        if self.standardise:
            axes = tuple(range(1, x.dim()))
            x = x - x.mean(axes, keepdim=True)
            x = x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt()  # a constant item stays 0
        for stage in self.stages:
            yield (x := stage(x))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if tuple(x.shape[2:]) != self.grid:  # else every cell is its own mean, and the pool costs a tenth of a step
            x = self.cells(x)
        return self.fc(self.dropout(x.flatten(1)))
