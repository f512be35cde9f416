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
from gridsight.nn import masked
from gridsight.nn.blocks import PerStage, make_norm, per_stage, same_conv, times
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach, he_init
from gridsight.nn.net import Net
from gridsight.nn.whiten import whiten


class Block(nn.Module):
    """x + relu(norm(conv(relu(norm(conv(x)))))): (N, width, *spatial) to the same shape."""

    def __init__(self, nd: Nd, width: int, kernel: tuple[int, ...], norm: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = same_conv(nd, width, width, kernel), make_norm(nd, norm, width)
        self.conv2, self.norm2 = same_conv(nd, width, width, kernel), make_norm(nd, norm, width)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        y = masked.norm(self.norm1, self.conv1(masked.fill(x, mask)), mask).relu()
        return x + masked.norm(self.norm2, self.conv2(masked.fill(y, mask)), mask).relu()


class Stage(nn.Module):
    """Convolution (stride), max pool, norm, ReLU, then `blocks` residual blocks; an axis shrinks by stride x pool.

    With `padding` "valid" the first convolution has none, so that an axis loses kernel - 1 cells besides.
    """

    def __init__(
        self, nd: Nd, c_in: int, width: int, blocks: int, kernel: Any, stride: Any, pool: Any, norm: str, padding: str
    ) -> None:
        super().__init__()
        if padding == "valid":
            self.conv = nd.Conv(c_in, width, kernel, stride, bias=False)
        else:
            self.conv = same_conv(nd, c_in, width, kernel, stride)
        self.norm = make_norm(nd, norm, width)
        # ceil_mode keeps the last, incomplete window of an odd size; pooling before the norm leaves it less to do
        self.pool = nd.MaxPool(pool, ceil_mode=True) if max(pool) > 1 else nn.Identity()
        self.blocks = nn.ModuleList(Block(nd, width, kernel, norm) for _ in range(blocks))
        self.kernel, self.stride, self.window, self.padding = kernel, stride, pool, padding

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        if self.padding == "valid":
            if mask is not None:
                raise UsageError('items of unequal size need gridnet\'s padding to be "same" in every stage')
            if any(n < k for n, k in zip(x.shape[2:], self.kernel, strict=True)):
                raise UsageError(
                    f"{times(x.shape[2:])} cells are too few for a valid convolution of {times(self.kernel)}: enlarge "
                    'the items (train --size), or give gridnet padding "same"'
                )
        x, mask = self.conv(masked.fill(x, mask)), masked.shrink(mask, self.stride)
        if max(self.window) > 1:
            x, mask = masked.max_pool(self.pool, x, mask), masked.shrink(mask, self.window)
        x = masked.norm(self.norm, x, mask).relu()
        for block in self.blocks:
            x = block(x, mask)
        return x


@MODELS.register(
    "gridnet",
    ndims=(1, 2, 3),
    paper="gridsight's default network",
    published=None,
    parameters_published=None,
    spatial=(32, 32),
    masked=True,
)
class GridNet(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    `widths` are the channels of each stage; `kernels`, `strides` (of a stage's first convolution) and `pools` are one
    int for all, or one entry a stage (an int, or one int an axis); `blocks` are residual blocks a stage; `padding` of
    the stages' first convolutions is "same" or "valid", one for all or one a stage. `grid` cells
    an axis reach the linear head (1: global mean), repeated where fewer are left; `dropout` is applied to them. `norm`
    is "batch", or "group", "layer", "instance", which look at one item alone. With `standardise` each item is brought
    to mean 0 and deviation 1 first.
    """

    small: ClassVar[dict[str, object]] = {
        "widths": (8, 16, 16),
        "blocks": (0, 1, 0),
        "kernels": (5, 3, 3),
        "strides": (2, 1, 1),
        "pools": (1, 2, 1),
        "grid": 2,
    }
    others: ClassVar[dict[str, object]] = {"norm": "layer", "padding": ("valid", "same", "same")}

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
        norm: str = "batch",
        padding: str | tuple[str, ...] = "same",
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.standardise = standardise
        kernel, stride, pool = (
            [nd.each(entry) for entry in per_stage(value, len(widths), name)]
            for name, value in (("kernels", kernels), ("strides", strides), ("pools", pools))
        )
        depth = per_stage(blocks, len(widths), "blocks")
        border = per_stage((padding,) * len(widths) if isinstance(padding, str) else padding, len(widths), "padding")
        if not set(border) <= {"same", "valid"}:
            raise UsageError(f'padding is "same" or "valid", not {padding!r}')
        self.grid = nd.each(grid)
        self.shrinks = [pair for each in zip(stride, pool, strict=True) for pair in each]
        self.stages = nn.ModuleList(
            Stage(nd, c_in, width, depth[i], kernel[i], stride[i], pool[i], norm, str(border[i]))
            for i, (c_in, width) in enumerate(pairwise((in_channels, *widths)))
        )
        self.cells = nd.AdaptiveAvgPool(self.grid)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(widths[-1] * math.prod(self.grid), num_classes)
        he_init(self)

    def whiten(self, x: Tensor) -> None:
        """Let the first stage whiten items like x (`nn.whiten`) and learn no more.

        Without a backward pass through the largest of all layers, a step of CIFAR-10 takes 15 % less time.
        """
        whiten(self.stages[0].conv, x)
        self.stages[0].requires_grad_(False)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        if self.standardise:
            shape = (len(x), 1, *[1] * (x.dim() - 2))
            # channels have equally many real cells: the mean of their means is the mean of all
            x = x - masked.mean(x, mask).mean(1).view(shape)
            x = x / (masked.mean(x.square(), mask).mean(1).view(shape) + 1e-5).sqrt()  # a constant item stays 0
        for i, stage in enumerate(self.stages):
            yield (x := stage(x, mask))
            mask = masked.shrink(mask, *self.shrinks[2 * i : 2 * i + 2])

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        mask = masked.shrink(mask, *self.shrinks)
        if mask is not None:
            x = masked.cells(x, mask, self.grid)
        elif tuple(x.shape[2:]) != self.grid:  # else every cell is its own mean, and the pool costs a tenth of a step
            x = self.cells(x)
        return self.fc(self.dropout(x.flatten(1)))
