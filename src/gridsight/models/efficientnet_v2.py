"""EfficientNetV2: Tan and Le, arXiv:2104.00298. torchvision's weights load and its 2-D logits are ours.

The early stages join the widening and the depthwise convolution into one full convolution (fused): more arithmetic,
but less memory traffic, and faster where channels are few. S is of table 4; M and L are of the authors' code, which
the paper only describes. `nn/efficient.py` holds the blocks.
Shapes, S in 2-D: (N, 3, 384, 384) -> 192, 192, 96, 48, 24, 24, 12 cells -> (N, 1280, 12, 12) -> (N, 1000).
"""

from typing import Any, ClassVar

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.efficient import Efficient, Row
from gridsight.nn.nd import Nd, OneOrEach

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:2104.00298",
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "built of plain layers, whose padding, norms and gates read what lies beyond a mask",
}

# expansion, kernel, stride, channels, blocks; the first three stages are fused
S: tuple[Row, ...] = (
    (1, 3, 1, 24, 2),
    (4, 3, 2, 48, 4),
    (4, 3, 2, 64, 4),
    (4, 3, 2, 128, 6),
    (6, 3, 1, 160, 9),
    (6, 3, 2, 256, 15),
)
M: tuple[Row, ...] = (
    (1, 3, 1, 24, 3),
    (4, 3, 2, 48, 5),
    (4, 3, 2, 80, 5),
    (4, 3, 2, 160, 7),
    (6, 3, 1, 176, 14),
    (6, 3, 2, 304, 18),
    (6, 3, 1, 512, 5),
)
L: tuple[Row, ...] = (
    (1, 3, 1, 32, 4),
    (4, 3, 2, 64, 7),
    (4, 3, 2, 96, 7),
    (4, 3, 2, 192, 10),
    (6, 3, 1, 224, 19),
    (6, 3, 2, 384, 25),
    (6, 3, 1, 640, 7),
)


@MODELS.register(
    {"efficientnet_v2_s": {"rows": S, "stem": 24, "dropout": 0.2}},
    **TAGS,
    published=on_imagenet(84.23),
    parameters_published=21_458_488,
    spatial=(384, 384),
)
@MODELS.register(
    {"efficientnet_v2_m": {"rows": M, "stem": 24, "dropout": 0.3}},
    **TAGS,
    published=on_imagenet(85.11),
    parameters_published=54_139_356,
    spatial=(480, 480),
)
@MODELS.register(
    {"efficientnet_v2_l": {"rows": L, "stem": 32, "dropout": 0.4}},
    **TAGS,
    published=on_imagenet(85.81),
    parameters_published=118_515_272,
    spatial=(480, 480),
)
class EfficientNetV2(Efficient):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    Stages: the stem, one a row, the last convolution (`last` channels); S at strides 2, 2, 4, 8, 16, 16, 32, 32. The
    first `fused` rows have fused blocks; `drop_path` is the rate at which a block after the last would drop its branch,
    from 0 at the first.
    """

    small: ClassVar[dict[str, object]] = {
        "rows": ((1, 3, 1, 8, 1), (4, 3, 2, 12, 1), (4, 3, 1, 12, 2)),
        "stem": 8,
        "fused": 2,
        "dropout": 0.2,
        "last": 32,
    }
    others: ClassVar[dict[str, object]] = {"fused": 1}

    def __init__(
        self,
        rows: tuple[Row, ...],
        stem: int,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        fused: int = 3,
        last: int = 1280,
        stem_stride: OneOrEach = 2,
        dropout: float = 0.2,
        drop_path: float = 0.2,
    ) -> None:
        norm = (1e-3, 0.1)
        super().__init__(
            Nd(ndim), in_channels, num_classes, rows, fused, stem, last, stem_stride, dropout, drop_path, norm
        )
