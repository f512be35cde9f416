"""Tiny VGG: the network of CNN Explainer, Wang et al., arXiv:2004.15004 (github.com/poloclub/cnn-explainer).

Two stages of two 3-tap convolutions without padding and a pool of 2, ten channels each, and one linear layer: the
smallest network in which every layer of a real one is there to be looked at. No difference from theirs but the names
of the layers: conv1_1, conv1_2, conv2_1, conv2_2, fc for conv_1_1, ..., output; `examples/tiny_vgg_tfjs.py` loads their
weights. The flatten head fixes the input size, which is why `spatial` is an argument.
Shapes in 2-D: (N, 3, 64, 64) -> (N, 10, 30, 30) -> (N, 10, 13, 13) -> flatten (N, 1690) -> (N, 10).
"""

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.nn.blocks import FlatLinear, Step, grid_after
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net


@MODELS.register(
    "tiny_vgg",
    ndims=(1, 2, 3),
    paper="arXiv:2004.15004",
    published=None,
    parameters_published=19_920,
    spatial=(64, 64),
    masked=False,
    unmasked="the flatten head needs every cell of a fixed size",
)
class TinyVGG(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2 and 4."""

    small: ClassVar[dict[str, object]] = {"spatial": 18}

    def __init__(
        self,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 10,
        spatial: OneOrEach = 64,
        width: int = 10,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.spatial = nd.each(spatial)
        stage: list[Step] = [(3, 1, 0), (3, 1, 0), (2, 2, 0)]
        grid = grid_after(nd, self.spatial, stage * 2)
        self.conv1_1, self.conv1_2 = nd.Conv(in_channels, width, 3), nd.Conv(width, width, 3)
        self.conv2_1, self.conv2_2 = nd.Conv(width, width, 3), nd.Conv(width, width, 3)
        self.pool1, self.pool2 = nd.MaxPool(2), nd.MaxPool(2)
        self.fc = FlatLinear(width, grid, num_classes)
        for name, parameter in self.named_parameters():  # Keras's own initialisation, which theirs was trained from
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        self.require_spatial(x)
        yield (x := self.pool1(self.conv1_2(self.conv1_1(x).relu()).relu()))
        yield self.pool2(self.conv2_2(self.conv2_1(x).relu()).relu())

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(x)
