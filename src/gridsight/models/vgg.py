"""VGG: Simonyan and Zisserman, arXiv:1409.1556, configurations A, B, D and E; with batch norm as torchvision's `_bn`.

torchvision's keys and 2-D logits. Stages of 3-tap convolutions, each stage with a pool of 2 at its end; three linear
layers on a grid of 7 cells an axis. What differs from the paper: He's initialisation, where the paper starts the deep
networks from a trained shallow one; the mean over a fixed grid before the linear layers (torchvision's), so that any
size from 32 cells goes in; at 224 the grid is what there is.
Shapes in 2-D: (N, 3, 224, 224) -> 112, 56, 28, 14, 7 cells -> flatten (N, 25088) -> (N, 4096) -> (N, 1000).
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import FlatLinear, PerStage, per_stage, same_conv
from gridsight.nn.chain import Chain
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach, he_init

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1409.1556",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "its pools drop the last cell of an odd size",
}


@MODELS.register(
    {"vgg11": {"depths": (1, 1, 2, 2, 2)}}, **TAGS, published=on_imagenet(69.02), parameters_published=132_863_336
)
@MODELS.register(
    {"vgg13": {"depths": (2, 2, 2, 2, 2)}}, **TAGS, published=on_imagenet(69.93), parameters_published=133_047_848
)
@MODELS.register(
    {"vgg16": {"depths": (2, 2, 3, 3, 3)}}, **TAGS, published=on_imagenet(71.59), parameters_published=138_357_544
)
@MODELS.register(
    {"vgg19": {"depths": (2, 2, 4, 4, 4)}}, **TAGS, published=on_imagenet(72.38), parameters_published=143_667_240
)
@MODELS.register(
    {"vgg11_bn": {"depths": (1, 1, 2, 2, 2), "norm": True}},
    **TAGS,
    published=on_imagenet(70.37),
    parameters_published=132_868_840,
)
@MODELS.register(
    {"vgg13_bn": {"depths": (2, 2, 2, 2, 2), "norm": True}},
    **TAGS,
    published=on_imagenet(71.59),
    parameters_published=133_053_736,
)
@MODELS.register(
    {"vgg16_bn": {"depths": (2, 2, 3, 3, 3), "norm": True}},
    **TAGS,
    published=on_imagenet(73.36),
    parameters_published=138_365_992,
)
@MODELS.register(
    {"vgg19_bn": {"depths": (2, 2, 4, 4, 4), "norm": True}},
    **TAGS,
    published=on_imagenet(74.22),
    parameters_published=143_678_248,
)
class VGG(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32, each after its pool.

    `depths` are the convolutions of each stage, `widths` their channels, `pools` the window and stride of its pool (one
    int for all, or one entry a stage, each an int or one int an axis); `norm` puts a batch norm after each convolution.
    """

    small: ClassVar[dict[str, object]] = {"depths": (1, 2), "widths": (8, 16), "hidden": 32, "grid": 2}
    others: ClassVar[dict[str, object]] = {"pools": 1}

    def __init__(
        self,
        depths: tuple[int, ...],
        norm: bool = False,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
        grid: OneOrEach = 7,
        kernel: OneOrEach = 3,
        pools: PerStage = 2,
        dropout: float = 0.5,
    ) -> None:
        nd, c = Nd(ndim), in_channels
        pools = [nd.each(pool) for pool in per_stage(pools, len(depths), "pools")]
        features: list[nn.Module] = []
        ends = []
        for depth, width, pool in zip(depths, per_stage(widths, len(depths), "widths"), pools, strict=True):
            for _ in range(depth):
                features += [same_conv(nd, c, width, kernel, bias=True), *([nd.BatchNorm(width)] * norm), nn.ReLU()]
                c = width
            features.append(nd.MaxPool(pool))
            ends.append(len(features) - 1)
        classifier = [
            FlatLinear(c, nd.each(grid), hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, num_classes),
        ]
        super().__init__(features, ends, nn.Sequential(*classifier), [(pool, pool, 0) for pool in pools])
        self.cells = nd.AdaptiveAvgPool(nd.each(grid))
        he_init(self)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.classifier(self.cells(x))
