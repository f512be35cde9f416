"""MobileNetV2: Sandler et al., arXiv:1801.04381. torchvision's weights load and its 2-D logits are ours.

Inverted residuals with linear bottlenecks (`nn/inverted.py`); ReLU6, which stays exact in 8-bit arithmetic. The last
layer keeps its 1280 channels in networks thinner than 1 (section 6.1).
Shapes in 2-D: (N, 3, 224, 224) -> 112, 56, 28, 14, 7 cells -> (N, 1280, 7, 7) -> (N, 1000).
"""

from typing import ClassVar

from torch import nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import conv_norm_act, round_channels
from gridsight.nn.chain import Chain, ends_of
from gridsight.nn.dropout import Dropout
from gridsight.nn.inverted import InvertedResidual
from gridsight.nn.nd import Nd, OneOrEach, he_init

Row = tuple[int, int, int, OneOrEach]
"""Expansion, channels, blocks and the stride of the first of them."""

# table 2
ROWS: tuple[Row, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@MODELS.register(
    "mobilenet_v2",
    ndims=(1, 2, 3),
    paper="arXiv:1801.04381",
    published=on_imagenet(71.88),
    parameters_published=3_504_872,
    spatial=(224, 224),
    publisher="torchvision",
    masked=False,
    unmasked="built of plain layers, whose padding and norms read what lies beyond a mask",
)
class MobileNetV2(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32.

    `width` multiplies every layer's channels; a stride in `rows` is an int or one int an axis.
    """

    small: ClassVar[dict[str, object]] = {"rows": ((1, 8, 1, 1), (3, 16, 2, 2))}
    # torchvision writes the last convolution and norm of a block as two layers, and the first block does not widen
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^features\.1\.conv\.1\.", "features.1.block.1.0."),
        (r"^features\.1\.conv\.2\.", "features.1.block.1.1."),
        (r"\.conv\.2\.", ".block.2.0."),
        (r"\.conv\.3\.", ".block.2.1."),
        (r"\.conv\.", ".block."),
    )

    def __init__(
        self,
        width: float = 1.0,
        rows: tuple[Row, ...] = ROWS,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        kernel: OneOrEach = 3,
        stem_stride: OneOrEach = 2,
        dropout: float = 0.2,
    ) -> None:
        nd, c, last = Nd(ndim), round_channels(32 * width), round_channels(1280 * max(1.0, width))
        features: list[nn.Module] = [conv_norm_act(nd, in_channels, c, kernel, stem_stride, nn.ReLU6)]
        strides = [stem_stride]
        for expansion, channels, blocks, stride in rows:
            for i in range(blocks):
                c_in, c = c, round_channels(channels * width)
                strides.append(1 if i else stride)
                features.append(InvertedResidual(nd, c_in, expansion * c_in, c, kernel, strides[-1], nn.ReLU6))
        features.append(conv_norm_act(nd, c, last, 1, 1, nn.ReLU6))
        classifier = nn.Sequential(Dropout(dropout), nn.Linear(last, num_classes))
        super().__init__(features, ends_of([*strides, 1]), classifier)
        he_init(self, linear_std=0.01)
