"""EfficientNet: Tan and Le, arXiv:1905.11946. torchvision's weights load and its 2-D logits are ours.

MobileNetV2's block with a gate and SiLU; B0 was found by a search (table 1), the others scale its width, depth and
resolution (`nn/compound.py`). B1 to B3 are phi 0.5, 1 and 2 rounded to tenths; B4 to B7 have factors of their own.
Differs from the paper, as torchvision does: the batch norms of B0 to B4 have PyTorch's epsilon and momentum; see also
`nn/efficient.py`.
Shapes, B0 in 2-D: (N, 3, 224, 224) -> 112, 112, 56, 28, 14, 14, 7, 7 cells -> (N, 1280, 7, 7) -> (N, 1000).
"""

from typing import Any, ClassVar

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import round_channels
from gridsight.nn.compound import scaled
from gridsight.nn.efficient import Efficient, Row
from gridsight.nn.inverted import Norm
from gridsight.nn.nd import Nd, OneOrEach

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1905.11946",
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "built of plain layers, whose padding, norms and gates read what lies beyond a mask",
}
PAPERS_NORM = (1e-3, 0.01)

# table 1, stages 2 to 8: expansion, kernel, stride, channels, blocks
B0: tuple[Row, ...] = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@MODELS.register(
    {"efficientnet_b0": {"width": 1.0, "depth": 1.0}},
    **TAGS,
    published=on_imagenet(77.69),
    parameters_published=5_288_548,
    spatial=(224, 224),
)
@MODELS.register(
    {"efficientnet_b1": {"width": 1.0, "depth": 1.1}},
    **TAGS,
    published=on_imagenet(78.64),
    parameters_published=7_794_184,
    spatial=(240, 240),
)
@MODELS.register(
    {"efficientnet_b2": {"width": 1.1, "depth": 1.2, "dropout": 0.3}},
    **TAGS,
    published=on_imagenet(80.61),
    parameters_published=9_109_994,
    spatial=(288, 288),
)
@MODELS.register(
    {"efficientnet_b3": {"width": 1.2, "depth": 1.4, "dropout": 0.3}},
    **TAGS,
    published=on_imagenet(82.01),
    parameters_published=12_233_232,
    spatial=(300, 300),
)
@MODELS.register(
    {"efficientnet_b4": {"width": 1.4, "depth": 1.8, "dropout": 0.4}},
    **TAGS,
    published=on_imagenet(83.38),
    parameters_published=19_341_616,
    spatial=(380, 380),
)
@MODELS.register(
    {"efficientnet_b5": {"width": 1.6, "depth": 2.2, "dropout": 0.4, "norm": PAPERS_NORM}},
    **TAGS,
    published=on_imagenet(83.44),
    parameters_published=30_389_784,
    spatial=(456, 456),
)
@MODELS.register(
    {"efficientnet_b6": {"width": 1.8, "depth": 2.6, "dropout": 0.5, "norm": PAPERS_NORM}},
    **TAGS,
    published=on_imagenet(84.01),
    parameters_published=43_040_704,
    spatial=(528, 528),
)
@MODELS.register(
    {"efficientnet_b7": {"width": 2.0, "depth": 3.1, "dropout": 0.5, "norm": PAPERS_NORM}},
    **TAGS,
    published=on_imagenet(84.12),
    parameters_published=66_347_960,
    spatial=(600, 600),
)
class EfficientNet(Efficient):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    Stages are the nine of table 1: the stem, one a row, and the last convolution; at strides 2, 2, 4, 8, 16, 16, 32, 32
    and 32.
    `width` and `depth` scale the channels and blocks of `rows`; `norm` is epsilon and momentum of every batch norm;
    `drop_path` is the rate at which a block after the last would drop its branch, from 0 at the first.
    """

    small: ClassVar[dict[str, object]] = {
        "rows": ((1, 3, 1, 8, 1), (4, 5, 2, 16, 2)),
        "width": 1.0,
        "depth": 1.0,
        "dropout": 0.2,
        "norm": (1e-5, 0.1),
    }

    def __init__(
        self,
        width: float,
        depth: float,
        rows: tuple[Row, ...] = B0,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        stem_stride: OneOrEach = 2,
        dropout: float = 0.2,
        drop_path: float = 0.2,
        norm: Norm = (1e-5, 0.1),
    ) -> None:
        rows, stem = scaled(rows, width, depth), round_channels(32 * width)
        last = 4 * rows[-1][-2]
        super().__init__(Nd(ndim), in_channels, num_classes, rows, 0, stem, last, stem_stride, dropout, drop_path, norm)
