"""InceptionTime: Ismail Fawaz et al., "InceptionTime: finding AlexNet for time series classification", 1909.04939.

Six modules: the input, narrowed to 32 channels, goes through kernels of 40, 20 and 10 taps; beside them a max pool and
a 1-tap convolution; all of it is concatenated and normed. Every third module adds a projection of what came in three
modules before. As the authors' code: kernels are even and pad as in Keras (`nn.blocks.even_conv`), a single channel
is not narrowed, weights start and norms have the epsilon as in Keras. What differs: the paper's answer is the mean of
five such networks, this is one; norms average over PyTorch's default number of batches; any number of axes, with as
many taps along each.

Shapes: (N, C, *spatial) -> 128 channels of as many cells, six times -> (N, num_classes).
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.blocks import even_conv, same_conv
from gridsight.nn.nd import Nd, OneOrEach, glorot_init
from gridsight.nn.net import Net

EPS = 1e-3  # Keras's


class Inception(nn.Module):
    """Convolutions side by side, and a max pool: (N, c_in, *spatial) -> (N, (kernels + 1) * width, *spatial)."""

    def __init__(self, nd: Nd, c_in: int, width: int, bottleneck: int, kernels: tuple[OneOrEach, ...]) -> None:
        super().__init__()
        narrow = bottleneck if c_in > 1 else 1
        self.bottleneck = same_conv(nd, c_in, narrow, 1) if c_in > 1 else nn.Identity()
        self.convs = nn.ModuleList(even_conv(nd, narrow, width, kernel) for kernel in kernels)
        self.pool, self.pool_conv = nd.MaxPool(3, 1, 1), same_conv(nd, c_in, width, 1)
        self.norm = nd.BatchNorm((len(kernels) + 1) * width, EPS)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        narrow = self.bottleneck(x)
        parts = [masked.run([conv], narrow, mask)[0] for conv in self.convs]
        parts.append(self.pool_conv(masked.max_pool(self.pool, x, mask)))
        return masked.norm(self.norm, torch.cat(parts, 1), mask).relu()


@MODELS.register(
    "inception_time",
    ndims=(1, 2, 3),
    paper="arXiv:1909.04939",
    published="95.7 % on FordA, 93.9 % on ECG5000 (means of five networks, 96.1 and 94.1 % as an ensemble; "
    "hfawaz/InceptionTime)",
    parameters_published=None,
    spatial=(140,),
    masked=True,
)
class InceptionTime(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); a stage a module.

    Each of `kernels` is an int or one int an axis and gives `width` channels; `residual` modules lie under each sum.
    """

    small: ClassVar[dict[str, object]] = {"depth": 3, "width": 6, "bottleneck": 6, "kernels": (4, 3)}

    def __init__(
        self,
        *,
        ndim: int = 1,
        in_channels: int = 1,
        num_classes: int = 5,
        depth: int = 6,
        width: int = 32,
        bottleneck: int = 32,
        kernels: tuple[OneOrEach, ...] = (40, 20, 10),
        residual: int = 3,
    ) -> None:
        super().__init__()
        nd, c_out, self.residual = Nd(ndim), (len(kernels) + 1) * width, residual
        channels = [in_channels] + [c_out] * depth
        self.stages = nn.ModuleList(Inception(nd, c_in, width, bottleneck, kernels) for c_in in channels[:-1])
        self.shortcuts = nn.ModuleList(
            nn.Sequential(same_conv(nd, channels[i], c_out, 1), nd.BatchNorm(c_out, EPS))
            for i in range(0, depth - residual + 1, residual)
        )
        self.fc = nn.Linear(c_out, num_classes)
        glorot_init(self)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        before = x
        for i, stage in enumerate(self.stages, 1):
            x = stage(x, mask)
            if i % self.residual == 0:
                shortcut, _ = masked.run([self.shortcuts[i // self.residual - 1]], before, mask)
                before = x = (x + shortcut).relu()
            yield x

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        return self.fc(masked.mean(x, mask))
