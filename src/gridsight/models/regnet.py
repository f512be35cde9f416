"""RegNet: Radosavovic, Kosaraju, Girshick, He and Dollar, arXiv:2003.13678. torchvision's weights load and its 2-D
logits are ours.

A design space instead of a network: block j should be w0 + wa * j channels wide (section 3.3, equation 2); that line is
brought to the nearest w0 * wm^s with a whole s (equations 3 and 4), to a multiple of 8 and of the group width, and
blocks of one width are a stage. A block is 1-tap, grouped k-tap, 1-tap convolution, all of one width (bottleneck ratio
1, where the search ended); RegNetY has a gate after the grouped one.
Differs from the paper, as torchvision does: multiples of the group width round halves up and never fall below 90 %, so
that x_400mf (400 channels, not 384), y_800mf (144 and 784, not 128 and 768) and y_8gf (224, not 168) are wider.
Shapes in 2-D: (N, 3, 224, 224) -> stem (N, 32, 112, 112) -> 56, 28, 14, 7 cells -> (N, 1000).
Over 150 lines because it holds the table of the whole family with the published numbers.
"""

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any, ClassVar

from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.blocks import PerStage, conv_norm_act, keeps_shape, per_stage, round_channels
from gridsight.nn.gates import SqueezeExcite
from gridsight.nn.nd import Nd, OneOrEach, he_init
from gridsight.nn.net import Net

TAGS: dict[str, Any] = {
    "ndims": (1, 2, 3),
    "paper": "arXiv:2003.13678",
    "spatial": (224, 224),
    "publisher": "torchvision",
    "masked": False,
    "unmasked": "built of plain layers, whose padding, norms and gates read what lies beyond a mask",
}


def widths_and_depths(w0: int, wa: float, wm: float, depth: int, group_width: int) -> list[tuple[int, int]]:
    """Channels and blocks of each stage.

    >>> widths_and_depths(56, 35.73, 2.28, 16, 16)
    [(64, 1), (128, 3), (288, 7), (672, 5)]
    """
    if w0 <= 0 or wa < 0 or wm <= 1:
        raise UsageError(f"a RegNet needs w0 above 0, wa of at least 0 and wm above 1, not {w0}, {wa}, {wm}")
    steps = [round(math.log((w0 + wa * j) / w0, wm)) for j in range(depth)]
    widths = [8 * round(w0 * wm**step / 8) for step in steps]
    counted = [(width, len(list(blocks))) for width, blocks in groupby(widths)]
    return [(round_channels(width, min(group_width, width)), blocks) for width, blocks in counted]


class Block(nn.Module):
    """relu(shortcut(x) + residual(x)): (N, c_in, *spatial) -> (N, width, *spatial / stride)."""

    def __init__(
        self, nd: Nd, c_in: int, width: int, kernel: OneOrEach, stride: OneOrEach, group_width: int, squeeze: float
    ) -> None:
        super().__init__()
        self.conv1 = conv_norm_act(nd, c_in, width, 1)
        self.conv2 = conv_norm_act(nd, width, width, kernel, stride, groups=width // min(group_width, width))
        # the width of the gate follows from the block's input
        self.gate = SqueezeExcite(nd, width, round(squeeze * c_in)) if squeeze else nn.Identity()
        self.conv3 = conv_norm_act(nd, width, width, 1, activation=None)
        keeps = keeps_shape(nd, c_in, width, stride)
        self.proj = nn.Identity() if keeps else conv_norm_act(nd, c_in, width, 1, stride, None)

    def forward(self, x: Tensor) -> Tensor:
        return (self.proj(x) + self.conv3(self.gate(self.conv2(self.conv1(x))))).relu()


@MODELS.register(
    {"regnet_x_400mf": {"w0": 24, "wa": 24.48, "wm": 2.54, "depth": 22, "group_width": 16}},
    **TAGS,
    published=on_imagenet(72.83),
    parameters_published=5_495_976,
)
@MODELS.register(
    {"regnet_x_800mf": {"w0": 56, "wa": 35.73, "wm": 2.28, "depth": 16, "group_width": 16}},
    **TAGS,
    published=on_imagenet(75.21),
    parameters_published=7_259_656,
)
@MODELS.register(
    {"regnet_x_1_6gf": {"w0": 80, "wa": 34.01, "wm": 2.25, "depth": 18, "group_width": 24}},
    **TAGS,
    published=on_imagenet(77.04),
    parameters_published=9_190_136,
)
@MODELS.register(
    {"regnet_x_3_2gf": {"w0": 88, "wa": 26.31, "wm": 2.25, "depth": 25, "group_width": 48}},
    **TAGS,
    published=on_imagenet(78.36),
    parameters_published=15_296_552,
)
@MODELS.register(
    {"regnet_x_8gf": {"w0": 80, "wa": 49.56, "wm": 2.88, "depth": 23, "group_width": 120}},
    **TAGS,
    published=on_imagenet(79.34),
    parameters_published=39_572_648,
)
@MODELS.register(
    {"regnet_x_16gf": {"w0": 216, "wa": 55.59, "wm": 2.1, "depth": 22, "group_width": 128}},
    **TAGS,
    published=on_imagenet(80.06),
    parameters_published=54_278_536,
)
@MODELS.register(
    {"regnet_x_32gf": {"w0": 320, "wa": 69.86, "wm": 2.0, "depth": 23, "group_width": 168}},
    **TAGS,
    published=on_imagenet(80.62),
    parameters_published=107_811_560,
)
@MODELS.register(
    {"regnet_y_400mf": {"w0": 48, "wa": 27.89, "wm": 2.09, "depth": 16, "group_width": 8, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(74.05),
    parameters_published=4_344_144,
)
@MODELS.register(
    {"regnet_y_800mf": {"w0": 56, "wa": 38.84, "wm": 2.4, "depth": 14, "group_width": 16, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(76.42),
    parameters_published=6_432_512,
)
@MODELS.register(
    {"regnet_y_1_6gf": {"w0": 48, "wa": 20.71, "wm": 2.65, "depth": 27, "group_width": 24, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(77.95),
    parameters_published=11_202_430,
)
@MODELS.register(
    {"regnet_y_3_2gf": {"w0": 80, "wa": 42.63, "wm": 2.66, "depth": 21, "group_width": 24, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(78.95),
    parameters_published=19_436_338,
)
@MODELS.register(
    {"regnet_y_8gf": {"w0": 192, "wa": 76.82, "wm": 2.19, "depth": 17, "group_width": 56, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(80.03),
    parameters_published=39_381_472,
)
@MODELS.register(
    {"regnet_y_16gf": {"w0": 200, "wa": 106.23, "wm": 2.48, "depth": 18, "group_width": 112, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(80.42),
    parameters_published=83_590_140,
)
@MODELS.register(
    {"regnet_y_32gf": {"w0": 232, "wa": 115.89, "wm": 2.53, "depth": 20, "group_width": 232, "squeeze": 0.25}},
    **TAGS,
    published=on_imagenet(80.88),
    parameters_published=145_046_770,
)
class RegNet(Net):
    """(N, in_channels, *spatial) -> logits (N, num_classes).

    Stages: the stem, then one a width, at strides 2, 4, 8, 16, 32. `w0`, `wa`, `wm` and `depth` give the widths,
    `group_width` the channels of each group; `squeeze` is the width of a gate as a share of its block's input (0: no
    gates). `kernels` and `strides` are one int for all stages, or one entry a stage, each an int or one int an axis.
    """

    small: ClassVar[dict[str, object]] = {"w0": 8, "wa": 8.0, "wm": 2.0, "depth": 4, "group_width": 4, "stem": 8}
    others: ClassVar[dict[str, object]] = {"wm": 3.0, "group_width": 8}
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^trunk_output\.block(\d)\.block\d-", r"stage\1."),
        (r"\.f\.a\.", ".conv1."),
        (r"\.f\.b\.", ".conv2."),
        (r"\.f\.se\.", ".gate."),
        (r"\.f\.c\.", ".conv3."),
    )

    def __init__(
        self,
        w0: int,
        wa: float,
        wm: float,
        depth: int,
        group_width: int,
        squeeze: float = 0.0,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        stem: int = 32,
        stem_stride: OneOrEach = 2,
        kernels: PerStage = 3,
        strides: PerStage = 2,
    ) -> None:
        super().__init__()
        nd, c, plan = Nd(ndim), stem, widths_and_depths(w0, wa, wm, depth, group_width)
        self.stem = conv_norm_act(nd, in_channels, c, 3, stem_stride)
        kernels, strides = per_stage(kernels, len(plan), "kernels"), per_stage(strides, len(plan), "strides")
        self.stages = [f"stage{i + 1}" for i in range(len(plan))]
        for i, (width, blocks) in enumerate(plan):
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(Block(nd, c, width, kernels[i], 1 if j else strides[i], group_width, squeeze))
                c = width
            self.add_module(self.stages[i], stage)
        self.fc = nn.Linear(c, num_classes)
        he_init(self, linear_std=0.01)

    def forward_stages(self, x: Tensor, mask: Tensor | None = None) -> Iterator[Tensor]:
        self.refuse_mask(mask)
        yield (x := self.stem(x))
        for name in self.stages:
            yield (x := self.get_submodule(name)(x))

    def forward_head(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(masked.mean(x, mask))
