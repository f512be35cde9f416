"""AlexNet: Krizhevsky, Sutskever and Hinton, NIPS 2012, in the one-tower form of Krizhevsky, arXiv:1404.5997.

torchvision's keys and 2-D logits. What the paper of 2012 has and this form leaves out:
- local response normalisation after the first two convolutions.
- two GPUs: its second, fourth and fifth convolution see the maps of one GPU, half of those before them.
- widths 96, 256, 384, 384, 256 (60,965,224 parameters); here 64, 192, 384, 256, 256.
- weights from N(0, 0.01) and biases of 1 in some layers; here PyTorch's own initialisation, as torchvision's.
The mean over a fixed grid before the linear layers is torchvision's: any size from 63 cells goes in, and at 224 the
grid is what there is.
Shapes in 2-D: (N, 3, 224, 224) -> 27, 13, 6 cells -> flatten (N, 9216) -> (N, 4096) -> (N, 1000).
"""

from typing import ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import FlatLinear, PerStage, Step, per_stage, same_conv
from gridsight.nn.chain import Chain
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach


@MODELS.register(
    "alexnet",
    ndims=(1, 2, 3),
    paper="Krizhevsky et al. 2012; arXiv:1404.5997",
    published=on_imagenet(56.52),
    parameters_published=61_100_840,
    spatial=(224, 224),
    publisher="torchvision",
    masked=False,
    unmasked="its first convolution and its pools are not centred: they drop cells at the end of an axis",
)
class AlexNet(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 8, 16, 32, each after its pool.

    `pools` are the strides of the three pools, whose windows have 3 cells and overlap at a stride of 2.
    """

    small: ClassVar[dict[str, object]] = {
        "widths": (6, 6, 8, 8, 6),
        "hidden": 16,
        "grid": 2,
        "stem_kernel": 5,
        "stem_stride": 1,
        "pools": (1, 1, 2),
    }
    others: ClassVar[dict[str, object]] = {"stem_stride": 2, "pools": (2, 1, 2)}

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 192, 384, 256, 256),
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        hidden: int = 4096,
        grid: OneOrEach = 6,
        stem_kernel: OneOrEach = 11,
        stem_stride: OneOrEach = 4,
        pools: PerStage = 2,
        dropout: float = 0.5,
    ) -> None:
        nd = Nd(ndim)
        a, b, c, d, e = widths
        strides = [nd.each(stride) for stride in per_stage(pools, 3, "pools")]
        pool1, pool2, pool3 = (nd.MaxPool(3, stride) for stride in strides)
        padding = tuple(min(2, k // 2) for k in nd.each(stem_kernel))
        stem = nd.Conv(in_channels, a, nd.each(stem_kernel), nd.each(stem_stride), padding)
        convs = [
            same_conv(nd, c_in, c_out, kernel, bias=True)
            for c_in, c_out, kernel in ((a, b, 5), (b, c, 3), (c, d, 3), (d, e, 3))
        ]
        features = [stem, nn.ReLU(), pool1, convs[0], nn.ReLU(), pool2]
        features += [convs[1], nn.ReLU(), convs[2], nn.ReLU(), convs[3], nn.ReLU(), pool3]
        classifier = [
            Dropout(dropout),
            FlatLinear(e, nd.each(grid), hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        ]
        steps: list[Step] = [(stem_kernel, stem_stride, padding), *((3, stride, 0) for stride in strides)]
        super().__init__(features, (2, 5, 12), nn.Sequential(*classifier), steps)
        self.cells = nd.AdaptiveAvgPool(nd.each(grid))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classifier(self.cells(x))
