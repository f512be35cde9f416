"""FCN for time series: Wang, Yan and Oates, "Time series classification from scratch", arXiv:1611.06455, section 2.2.

Three convolutions with norms and ReLUs, no stride, a global mean; a strong and fast baseline on series of any length.
What differs: the biases before the norms, which these take away again, are left out. Even kernels pad as in the
authors' Keras (`nn.blocks.even_conv`), weights start as there and norms have Keras's epsilon; they average over
PyTorch's default number of batches, a tenth of Keras's. The paper has one axis; here the kernels have as many taps
along every axis.

Shapes: (N, C, *spatial) -> 128, 256, 128 channels of as many cells -> (N, num_classes).
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.blocks import PerStage, even_conv, per_stage
from gridsight.nn.nd import Nd, glorot_init
from gridsight.nn.net import Net

EPS = 1e-3  # Keras's


@MODELS.register(
    "fcn",
    ndims=(1, 2, 3),
    paper="arXiv:1611.06455",
    published="90.4 % on FordA, 94.0 % on ECG5000 (means of ten runs, hfawaz/dl-4-tsc)",
    parameters_published=None,
    spatial=(140,),
    masked=True,
)
class FCN(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes); a stage a convolution.

    `kernels` is one int for all stages or one entry a stage, an int or one int an axis.
    """

    small: ClassVar[dict[str, object]] = {"widths": (12, 16, 12), "kernels": (4, 3, 3)}

    def __init__(
        self,
        widths: tuple[int, ...] = (128, 256, 128),
        *,
        ndim: int = 1,
        in_channels: int = 1,
        num_classes: int = 5,
        kernels: PerStage = (8, 5, 3),
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        taps = per_stage(kernels, len(widths), "kernels")
        self.stages = nn.ModuleList(
            nn.Sequential(*even_conv(nd, c_in, width, taps[i]), nd.BatchNorm(width, EPS), nn.ReLU())
            for i, (c_in, width) in enumerate(pairwise((in_channels, *widths)))
        )
        self.fc = nn.Linear(widths[-1], num_classes)
        glorot_init(self)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        for stage in self.stages:
            x, _ = masked.run([stage], x, mask)
            yield x

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        return self.fc(masked.mean(x, mask))
