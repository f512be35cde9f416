"""LeNet-5: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.

Shapes in 2-D: (N, 1, 32, 32) -> C1 (N, 6, 28, 28) -> S2 (N, 6, 14, 14) -> C3 (N, 16, 10, 10) -> S4 (N, 16, 5, 5)
-> C5 (N, 120) -> F6 (N, 84) -> (N, 10). This is the version that everyone trains today, with 61,706 parameters.
The paper's own has about 60,000 trainable ones because it differs in four places:
- S2 and S4 there have a trainable gain and bias a map and a sigmoid; here they are plain averages.
- C3 there sees a hand-made table of 3, 4 or 6 maps each; here every map sees all six.
- the activation there is 1.7159 tanh(2x/3); here tanh.
- the output there is 10 radial basis functions with fixed bitmaps and its own loss; here 10 logits.
C5 is a 5x5 convolution over 5x5 cells there, which is this linear layer. Digits of 28x28 lie in the middle of 32x32.
"""

import math
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.nn.blocks import grid_after
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.net import Net


@MODELS.register(
    "lenet5",
    ndims=(1, 2, 3),
    paper="LeCun et al. 1998, doi:10.1109/5.726791",
    published="99.05 % on MNIST without distortions (LeCun et al. 1998, of the original network)",
    parameters_published=61_706,
    spatial=(32, 32),
    masked=False,
    unmasked="the flatten head needs every cell of a fixed size",
)
class LeNet5(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2 and 4.

    `padding` of the first convolution: None adds 2 on an axis of 28 cells (the paper's 32) and nothing on others.
    """

    small: ClassVar[dict[str, object]] = {"spatial": 23}
    others: ClassVar[dict[str, object]] = {"padding": 1}

    def __init__(
        self,
        *,
        ndim: int = 2,
        in_channels: int = 1,
        num_classes: int = 10,
        spatial: OneOrEach = 32,
        kernel: OneOrEach = 5,
        padding: OneOrEach | None = None,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        self.spatial = nd.each(spatial)
        pad = tuple(2 * (n == 28) for n in self.spatial) if padding is None else nd.each(padding)
        grid = grid_after(nd, self.spatial, [(kernel, 1, pad), (2, 2, 0), (kernel, 1, 0), (2, 2, 0)])
        self.conv1 = nd.Conv(in_channels, 6, nd.each(kernel), padding=pad)
        self.conv2 = nd.Conv(6, 16, nd.each(kernel))
        self.pool1, self.pool2 = nd.AvgPool(2), nd.AvgPool(2)
        self.fc1 = nn.Linear(16 * math.prod(grid), 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        self.require_spatial(x)
        yield (x := self.pool1(self.conv1(x).tanh()))
        yield self.pool2(self.conv2(x).tanh())

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc3(self.fc2(self.fc1(x.flatten(1)).tanh()).tanh())
