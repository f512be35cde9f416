"""MobileNetV3: Howard et al., arXiv:1905.02244, tables 1 and 2. torchvision's weights load and its 2-D logits are ours.

V2's block with a gate (squeeze and excitation) where the search put one, and hard swish, x * relu6(x + 3) / 6, in the
deeper half. The head widens after the mean over cells, where it costs one cell (section 5.1).
Differs from the paper, as torchvision does: the head's first layer has no norm, and a gate has a quarter of the wide
channels, rounded to eights.
Shapes in 2-D: (N, 3, 224, 224) -> 112, 56, 28, 14, 7 cells -> (N, 960 or 576, 7, 7) -> (N, 1000).
"""

from typing import Any, ClassVar

from torch import nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn.blocks import conv_norm_act, round_channels
from gridsight.nn.chain import Chain, ends_of
from gridsight.nn.dropout import Dropout
from gridsight.nn.gates import SqueezeExcite
from gridsight.nn.inverted import InvertedResidual
from gridsight.nn.nd import Nd, OneOrEach, he_init

Row = tuple[OneOrEach, int, int, bool, str, OneOrEach]
"""A block: kernel, wide channels, channels, whether it has a gate, activation (a key of `ACTIVATIONS`), stride."""

ACTIVATIONS = {"RE": nn.ReLU, "HS": nn.Hardswish}
NORM = (1e-3, 0.01)  # epsilon and momentum, in every batch norm

LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)
TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:1905.02244",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "built of plain layers, whose padding, norms and gates read what lies beyond a mask",
}


@MODELS.register(
    {"mobilenet_v3_large": {"rows": LARGE, "hidden": 1280}},
    **TAGS,
    published=on_imagenet(74.04),
    parameters_published=5_483_032,
)
@MODELS.register(
    {"mobilenet_v3_small": {"rows": SMALL, "hidden": 1024}},
    **TAGS,
    published=on_imagenet(67.67),
    parameters_published=2_542_856,
)
class MobileNetV3(Chain):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32.

    `hidden` is the width of the head between its two linear layers; `width` multiplies it and every layer's channels.
    """

    small: ClassVar[dict[str, object]] = {
        "rows": ((3, 16, 16, False, "RE", 1), (5, 24, 16, True, "HS", 2), (3, 24, 16, True, "RE", 1)),
        "hidden": 16,
    }
    others: ClassVar[dict[str, object]] = {"hidden": 24}

    def __init__(
        self,
        rows: tuple[Row, ...],
        hidden: int,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: float = 1.0,
        stem_stride: OneOrEach = 2,
        dropout: float = 0.2,
    ) -> None:
        nd, c, hidden = Nd(ndim), round_channels(16 * width), round_channels(hidden * width)
        features: list[nn.Module] = [conv_norm_act(nd, in_channels, c, 3, stem_stride, nn.Hardswish, 1, *NORM)]
        for kernel, wide, channels, gated, activation, stride in rows:
            c_in, c, wide = c, round_channels(channels * width), round_channels(wide * width)
            squeezed = round_channels(wide // 4)
            gate = SqueezeExcite(nd, wide, squeezed, gate=nn.Hardsigmoid) if gated else None
            act = ACTIVATIONS[activation]
            features.append(InvertedResidual(nd, c_in, wide, c, kernel, stride, act, gate, norm=NORM))
        features.append(conv_norm_act(nd, c, 6 * c, 1, 1, nn.Hardswish, 1, *NORM))
        classifier = nn.Sequential(
            nn.Linear(6 * c, hidden), nn.Hardswish(), Dropout(dropout), nn.Linear(hidden, num_classes)
        )
        super().__init__(features, ends_of([stem_stride, *(row[-1] for row in rows), 1]), classifier)
        he_init(self, linear_std=0.01)
