"""ShuffleNetV2: Ma, Zhang, Zheng and Sun, arXiv:1807.11164. torchvision's weights load and its 2-D logits are ours.

Written from rules for speed instead of counts of operations: 1-tap convolutions with equally many channels on both
sides, no groups, little fragmentation, no sums. Half of the channels pass a block untouched, the other half are
convolved, and a shuffle mixes the halves; a block that strides convolves two copies and doubles the channels.
Shapes in 2-D: (N, 3, 224, 224) -> 112, pool, 28, 14, 7 cells -> (N, 1024 or 2048, 7, 7) -> (N, 1000).
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.blocks import PerStage, channel_shuffle, conv_norm_act, per_stage
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1807.11164",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "built of plain layers, whose padding and norms read what lies beyond a mask",
}


class Block(nn.Module):
    """(N, C, *spatial) to the same; a row's first block: (N, c_in, *spatial) to (N, c_out, *spatial / stride)."""

    def __init__(self, nd: Nd, c_in: int, c_out: int, kernel: OneOrEach, stride: OneOrEach, first: bool) -> None:
        super().__init__()
        self.first, half = first, c_out // 2
        mix = conv_norm_act(nd, half, half, kernel, stride, None, groups=half)
        before, after = conv_norm_act(nd, c_in if first else half, half, 1), conv_norm_act(nd, half, half, 1)
        self.branch2 = nn.Sequential(*before, *mix, *after)
        self.branch1 = nn.Sequential()
        if first:
            copy = conv_norm_act(nd, c_in, c_in, kernel, stride, None, groups=c_in)
            self.branch1 = nn.Sequential(*copy, *conv_norm_act(nd, c_in, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        left, right = (x, x) if self.first else (x[:, :half], x[:, half:])
        return channel_shuffle(torch.cat([self.branch1(left), self.branch2(right)], 1), 2)


@MODELS.register(
    {"shufflenet_v2_x0_5": {"widths": (24, 48, 96, 192, 1024)}},
    **TAGS,
    published=on_imagenet(60.55),
    parameters_published=1_366_792,
)
@MODELS.register(
    {"shufflenet_v2_x1_0": {"widths": (24, 116, 232, 464, 1024)}},
    **TAGS,
    published=on_imagenet(69.36),
    parameters_published=2_278_604,
)
@MODELS.register(
    {"shufflenet_v2_x1_5": {"widths": (24, 176, 352, 704, 1024)}},
    **TAGS,
    published=on_imagenet(73.00),
    parameters_published=3_503_624,
)
@MODELS.register(
    {"shufflenet_v2_x2_0": {"widths": (24, 244, 488, 976, 2048)}},
    **TAGS,
    published=on_imagenet(76.23),
    parameters_published=7_393_996,
)
class ShuffleNetV2(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    Stages: the stem (before its pool), then one a row of blocks, at strides 2, 8, 16, 32. `widths` are the channels
    of the stem, of each row (even), and of the last convolution; `depths` are the blocks of each row (table 5) and
    `strides` those of its first block: one int for all, or one entry a row, an int or one int an axis.
    """

    small: ClassVar[dict[str, object]] = {"widths": (8, 12, 16, 24), "depths": (2, 2)}

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...] = (4, 8, 4),
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        kernel: OneOrEach = 3,
        stem_stride: OneOrEach = 2,
        strides: PerStage = 2,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        stem, *rows, last = widths
        self.conv1, self.maxpool = conv_norm_act(nd, in_channels, stem, kernel, stem_stride), nd.MaxPool(3, 2, 1)
        c, strides = stem, per_stage(strides, len(rows), "strides")
        self.rows = [f"stage{i + 2}" for i in range(len(rows))]
        for i, (width, depth) in enumerate(zip(rows, depths, strict=True)):
            row = nn.Sequential()
            for j in range(depth):
                row.append(Block(nd, c, width, kernel, 1 if j else strides[i], first=j == 0))
                c = width
            self.add_module(self.rows[i], row)
        self.conv5, self.fc = conv_norm_act(nd, c, last, 1), nn.Linear(last, num_classes)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        yield (x := self.conv1(x))
        x = self.maxpool(x)
        for name in self.rows[:-1]:
            yield (x := self.get_submodule(name)(x))
        yield self.conv5(self.get_submodule(self.rows[-1])(x))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(masked.mean(x, mask))
