"""SimpleCNN: two convolutions and two linear layers, the smallest network that shows what a CNN is.

Source: the teaching network of many first courses on 32x32 colour images (CIFAR-10); no paper, no published weights.
Shapes in 2-D: (N, 3, 32, 32) -> (N, 16, 16, 16) -> (N, 32, 8, 8) -> flatten (N, 2048) -> (N, 128) -> (N, 10).
The flatten head fixes the input size, which is why `spatial` is an argument.
"""

import math
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.nn.blocks import grid_after
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net


@MODELS.register(
    "simple_cnn",
    ndims=(1, 2, 3),
    paper=None,
    published=None,
    parameters_published=268_650,
    spatial=(32, 32),
    masked=False,
    unmasked="the flatten head needs every cell of a fixed size",
)
class SimpleCNN(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2 and 4 (`pool` 2)."""

    small: ClassVar[dict[str, object]] = {"spatial": 16, "channels": (4, 8), "hidden": 16}

    def __init__(
        self,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 10,
        spatial: OneOrEach = 32,
        channels: tuple[int, int] = (16, 32),
        hidden: int = 128,
        kernel: OneOrEach = 3,
        pool: OneOrEach = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.spatial, kernel, pool = nd.each(spatial), nd.each(kernel), nd.each(pool)
        padding = tuple(k // 2 for k in kernel)
        grid = grid_after(nd, self.spatial, [(kernel, 1, padding), (pool, pool, 0)] * 2)
        self.conv1 = nd.Conv(in_channels, channels[0], kernel, padding=padding)
        self.conv2 = nd.Conv(channels[0], channels[1], kernel, padding=padding)
        self.pool1, self.pool2 = nd.MaxPool(pool), nd.MaxPool(pool)
        self.fc1 = nn.Linear(channels[1] * math.prod(grid), hidden)
        self.dropout = Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        self.require_spatial(x)
        yield (x := self.pool1(self.conv1(x).relu()))
        yield self.pool2(self.conv2(x).relu())

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc2(self.dropout(self.fc1(x.flatten(1)).relu()))
