"""SqueezeNet: Iandola et al., arXiv:1602.07360; 1.1 is the authors' later network with 2.4 times fewer operations.

torchvision's keys and 2-D logits for both. A fire module squeezes to few channels with a 1-tap convolution, then
expands with 1-tap and 3-tap ones side by side, four times as many of each. The head is a convolution to the classes, a
ReLU and the mean over cells: there is no linear layer, and logits are never below 0.
Pools have 3 cells at a stride of 2; `ceil` keeps an incomplete last window, as Caffe does and so the authors' networks.
`squeezenet1_0_caffe` is the authors' network of the paper to the letter, with one cell of padding at the last
convolution (`head_padding`), whose logits there are its biases; torchvision's leaves that out.
Shapes in 2-D (1.0): (N, 3, 224, 224) -> 109, 54, 27, 13 cells -> (N, 512, 13, 13) -> (N, 1000).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.blocks import Step, same_conv
from gridsight.nn.chain import Chain
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1602.07360",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "rectified": "logits come out of a ReLU, as in the paper, so that a class can be silent",
    "unmasked": "its first convolution and its pools have no padding: they drop cells at the end of an axis",
}
FIRST: dict[str, Any] = {"squeezes": ((16, 16, 32), (32, 48, 48, 64), (64,)), "width": 96, "kernel": 7}


class Fire(nn.Module):
    """(N, c_in, *spatial) -> (N, 8 squeeze, *spatial)."""

    def __init__(self, nd: Nd, c_in: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze = nd.Conv(c_in, squeeze, 1)
        self.expand1x1 = nd.Conv(squeeze, 4 * squeeze, 1)
        self.expand3x3 = same_conv(nd, squeeze, 4 * squeeze, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


@MODELS.register(
    {"squeezenet1_0": FIRST},
    **TAGS,
    published=on_imagenet(58.09),
    parameters_published=1_248_424,
)
@MODELS.register(
    {"squeezenet1_1": {"squeezes": ((16, 16), (32, 32), (48, 48, 64, 64))}},
    **TAGS,
    published=on_imagenet(58.18),
    parameters_published=1_235_496,
)
@MODELS.register(
    {"squeezenet1_0_caffe": {**FIRST, "head_padding": 1}},
    **{**TAGS, "spatial": (227, 227), "publisher": None},
    published="57.5 % top-1 on ImageNet (arXiv:1602.07360, table 2)",
    parameters_published=1_248_424,
    not_inflated={3: "the cells that pad its last convolution are a larger share of the mean with every axis"},
)
class SqueezeNet(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16 (`stem_stride` 2).

    `squeezes` are the squeezed widths of the fire modules, one group after each pool; `width` and `kernel` are the
    first convolution's.
    """

    small: ClassVar[dict[str, object]] = {"squeezes": ((8, 12),), "width": 16}

    def __init__(
        self,
        squeezes: tuple[tuple[int, ...], ...],
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        kernel: OneOrEach = 3,
        stem_stride: OneOrEach = 2,
        ceil: bool = True,
        head_padding: OneOrEach = 0,
        dropout: float = 0.5,
    ) -> None:
        nd, c = Nd(ndim), width
        features = [nd.Conv(in_channels, c, nd.each(kernel), nd.each(stem_stride)), nn.ReLU()]
        ends = [1]
        for group in squeezes:
            features.append(nd.MaxPool(3, 2, ceil_mode=ceil))
            for squeeze in group:
                features.append(Fire(nd, c, squeeze))
                c = 8 * squeeze
            ends.append(len(features) - 1)
        last = nd.Conv(c, num_classes, 1, padding=nd.each(head_padding))
        # a window of 3 that may be incomplete needs what a window of 2 needs
        steps: list[Step] = [(kernel, stem_stride, 0), *[(2 if ceil else 3, 2, 0)] * len(squeezes)]
        super().__init__(features, ends, nn.Sequential(Dropout(dropout), last, nn.ReLU()), steps)
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(last.weight, std=0.01)

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return masked.mean(self.classifier(x), None)
