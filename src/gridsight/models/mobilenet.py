"""MobileNet (V1): Howard et al., arXiv:1704.04861.

A convolution is factored into a depthwise one, which mixes the cells of each channel, and a 1-tap one, which mixes the
channels of each cell: 1/N + 1/k^2 of the work for N output channels and k x k taps (section 3.1). The width multiplier
thins every layer (section 3.3); the resolution multiplier is the size of the input.

Differs from the paper: the last block strides by 1. Table 1 prints 2, beside an output of the same size as its input.
Shapes in 2-D: (N, 3, 224, 224) -> 112, 56, 28, 14, 7 cells -> (N, 1024, 7, 7) -> (N, 1000).
"""

from typing import Any, ClassVar

from torch import nn

from gridsight.models import MODELS
from gridsight.nn.blocks import conv_norm_act, round_channels
from gridsight.nn.chain import Chain, ends_of
from gridsight.nn.nd import Nd, OneOrEach, he_init

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1704.04861",
    "spatial": (224, 224),
    "publisher": None,
    "masked": False,
    "unmasked": "built of plain layers, whose padding and norms read what lies beyond a mask",
}

# channels and stride of each separable block (table 1)
ROWS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def separable(nd: Nd, c_in: int, c_out: int, kernel: OneOrEach, stride: OneOrEach) -> nn.Sequential:
    """Depthwise, then 1-tap convolution, each with a norm and a ReLU."""
    mix = conv_norm_act(nd, c_in, c_in, kernel, stride, groups=c_in)
    return nn.Sequential(mix, conv_norm_act(nd, c_in, c_out, 1))


@MODELS.register(
    "mobilenet_v1",
    **TAGS,
    published="70.6 % top-1 on ImageNet (arXiv:1704.04861, table 6)",
    parameters_published=4_231_976,  # trainable parameters of keras.applications.MobileNet; 4.2 M in the paper
)
@MODELS.register(
    {"mobilenet_v1_x0_75": {"width": 0.75}},
    **TAGS,
    published="68.4 % top-1 on ImageNet (arXiv:1704.04861, table 6)",
    parameters_published=None,
)
@MODELS.register(
    {"mobilenet_v1_x0_5": {"width": 0.5}},
    **TAGS,
    published="63.7 % top-1 on ImageNet (arXiv:1704.04861, table 6)",
    parameters_published=None,
)
@MODELS.register(
    {"mobilenet_v1_x0_25": {"width": 0.25}},
    **TAGS,
    published="50.6 % top-1 on ImageNet (arXiv:1704.04861, table 6)",
    parameters_published=None,
)
class MobileNet(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32.

    `rows` are channels and stride of each block; a stride is an int or one int an axis.
    """

    small: ClassVar[dict[str, object]] = {"rows": ((16, 1), (24, 2), (24, 1)), "width": 1.0}
    others: ClassVar[dict[str, object]] = {"rows": ((16, 1), (24, 1))}

    def __init__(
        self,
        width: float = 1.0,
        rows: tuple[tuple[int, OneOrEach], ...] = ROWS,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        kernel: OneOrEach = 3,
        stem_stride: OneOrEach = 2,
    ) -> None:
        nd, c = Nd(ndim), round_channels(32 * width)
        features: list[nn.Module] = [conv_norm_act(nd, in_channels, c, kernel, stem_stride)]
        for channels, stride in rows:
            c_in, c = c, round_channels(channels * width)
            features.append(separable(nd, c_in, c, kernel, stride))
        ends = ends_of([stem_stride, *(stride for _, stride in rows)])
        super().__init__(features, ends, nn.Sequential(nn.Linear(c, num_classes)))
        he_init(self)
