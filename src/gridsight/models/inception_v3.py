"""Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, arXiv:1512.00567, in the version of torchvision.

torchvision's 2-D logits. Modules of parallel branches in which large kernels are factorised into one convolution an
axis: 7 x 7 becomes 1 x 7 and 7 x 1. In 1-D that is one convolution, in 3-D three, so that weights do not go over to
another number of axes. The auxiliary head exists in training only.
What differs from torchvision: on less than 17 cells an axis (inputs under 299) its auxiliary head cannot be computed;
here it then reads the means of 5 cells. Weights start as PyTorch's layers do (torchvision's `init_weights=False`).
torchvision's file was trained on values from -1 to 1: mean 0.5 and deviation 0.5 a channel.
Shapes in 2-D: (N, 3, 299, 299) -> 147, 71, 35, 17, 8 cells -> (N, 2048, 8, 8) -> (N, 1000). 27,161,264 parameters, of
which inference uses 23,834,568. Over 150 lines because the paper has six kinds of module.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from gridsight.models import MODELS
from gridsight.models._tags import on_imagenet
from gridsight.nn import masked
from gridsight.nn.blocks import Branches, average_pool, conv_norm_act
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, OneOrEach
from gridsight.nn.staged import Staged

EPS = 1e-3


class Builder:
    """Makes the modules of one network; `width` multiplies every number of channels that is named."""

    def __init__(self, nd: Nd, width: float) -> None:
        self.nd, self.width = nd, width
        # the publisher's order: along the last axis first
        self.axes = list(reversed(range(nd.ndim)))

    def channels(self, *named: int) -> int:
        """The sum of what these become."""
        return sum(max(1, round(c * self.width)) for c in named)

    def cut(self, c_in: int, c_out: int, stride: OneOrEach, padding: int, kernel: int = 3) -> nn.Sequential:
        """Convolution that is not centred, norm, ReLU."""
        conv = self.nd.Conv(c_in, self.channels(c_out), kernel, self.nd.each(stride), padding, bias=False)
        return nn.Sequential(conv, self.nd.BatchNorm(self.channels(c_out), EPS), nn.ReLU())

    def chain(self, c_in: int, *steps: tuple[int, OneOrEach]) -> nn.Sequential:
        """Centred convolutions one after the other, each to (channels) with (kernel)."""
        layers = []
        for c_out, kernel in steps:
            layers.append(conv_norm_act(self.nd, c_in, self.channels(c_out), kernel, eps=EPS))
            c_in = self.channels(c_out)
        return nn.Sequential(*layers)

    def along(self, axis: int, kernel: int) -> tuple[int, ...]:
        """A kernel that has one tap on every other axis."""
        return tuple(kernel if a == axis else 1 for a in range(self.nd.ndim))

    def sevens(self, inner: int, axes: Sequence[int]) -> list[tuple[int, OneOrEach]]:
        """Steps of 7 taps along one axis after the other; the last puts out 192 channels."""
        widths = [inner] * (len(axes) - 1) + [192]
        return [(c_out, self.along(axis, 7)) for c_out, axis in zip(widths, axes, strict=True)]

    def fan(self, c_in: int) -> Branches:
        """3 taps along each axis, side by side."""
        return Branches({f"axis{a}": self.chain(c_in, (384, self.along(a, 3)))[0] for a in self.axes})

    def pooled(self, c_in: int, c_out: int) -> nn.Sequential:
        """Mean of 3 cells an axis, then a 1-tap convolution."""
        return nn.Sequential(average_pool(self.nd, 3, 1, 1), *self.chain(c_in, (c_out, 1)))

    def mixed_a(self, c_in: int, pooled: int) -> tuple[nn.Module, int]:
        """Figure 5, two convolutions of 3 taps in the place of 5."""
        branches = {
            "branch1x1": self.chain(c_in, (64, 1)),
            "branch5x5": self.chain(c_in, (48, 1), (64, 5)),
            "branch3x3dbl": self.chain(c_in, (64, 1), (96, 3), (96, 3)),
            "branch_pool": self.pooled(c_in, pooled),
        }
        return Branches(branches), self.channels(64, 64, 96, pooled)

    def reduce_a(self, c_in: int, stride: OneOrEach, padding: int) -> tuple[nn.Module, int]:
        """Figure 10: branches that stride, and a pool."""
        double = self.chain(c_in, (64, 1), (96, 3))
        branches = {
            "branch3x3": nn.Sequential(self.cut(c_in, 384, stride, padding)),
            "branch3x3dbl": double.append(self.cut(self.channels(96), 96, stride, padding)),
            "branch_pool": self.nd.MaxPool(3, self.nd.each(stride), padding),
        }
        return Branches(branches), self.channels(384, 96) + c_in

    def mixed_c(self, c_in: int, inner: int) -> tuple[nn.Module, int]:
        """Figure 6: 7 taps along each axis, once and twice."""
        branches = {
            "branch1x1": self.chain(c_in, (192, 1)),
            "branch7x7": self.chain(c_in, (inner, 1), *self.sevens(inner, self.axes)),
            "branch7x7dbl": self.chain(c_in, (inner, 1), *self.sevens(inner, self.axes[::-1] * 2)),
            "branch_pool": self.pooled(c_in, 192),
        }
        return Branches(branches), self.channels(192, 192, 192, 192)

    def reduce_c(self, c_in: int, stride: OneOrEach, padding: int) -> tuple[nn.Module, int]:
        """As `reduce_a`, with 7 taps along each axis before one of the strides."""
        three, seven = self.chain(c_in, (192, 1)), self.chain(c_in, (192, 1), *self.sevens(192, self.axes))
        branches = {
            "branch3x3": three.append(self.cut(self.channels(192), 320, stride, padding)),
            "branch7x7x3": seven.append(self.cut(self.channels(192), 192, stride, padding)),
            "branch_pool": self.nd.MaxPool(3, self.nd.each(stride), padding),
        }
        return Branches(branches), self.channels(320, 192) + c_in

    def mixed_e(self, c_in: int) -> tuple[nn.Module, int]:
        """Figure 7: 3 taps along each axis, side by side."""
        branches = {
            "branch1x1": self.chain(c_in, (320, 1)),
            "branch3x3": self.chain(c_in, (384, 1)).append(self.fan(self.channels(384))),
            "branch3x3dbl": self.chain(c_in, (448, 1), (384, 3)).append(self.fan(self.channels(384))),
            "branch_pool": self.pooled(c_in, 192),
        }
        return Branches(branches), self.channels(320, *(384,) * 2 * self.nd.ndim, 192)


class AuxiliaryHead(nn.Module):
    """(N, c_in, *spatial) -> logits (N, num_classes): means of 5 cells every 3, two convolutions, a linear map."""

    def __init__(self, build: Builder, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.pool, self.cells = build.nd.AvgPool(5, 3), build.nd.AdaptiveAvgPool(5)
        self.conv0 = build.chain(c_in, (128, 1))[0]
        self.conv1 = build.cut(build.channels(128), 768, 1, 0, kernel=5)
        self.fc = nn.Linear(build.channels(768), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # 17 cells make 5 windows of 5 every 3, as many as the second convolution needs
        x = self.pool(x) if min(x.shape[2:]) >= 17 else self.cells(x)
        return self.fc(masked.mean(self.conv1(self.conv0(x)), None))


@MODELS.register(
    "inception_v3",
    ndims=(1, 2, 3),
    paper="arXiv:1512.00567",
    published=on_imagenet(77.29),
    parameters_published=27_161_264,
    spatial=(299, 299),
    publisher="torchvision",
    not_inflated="a factorised kernel has one convolution an axis, and its averages count padding as zeros",
    masked=False,
    unmasked="its first convolutions and its pools have no padding: they drop cells at the end of an axis",
)
class InceptionV3(Staged):
    """(N, in_channels, *spatial) -> logits (N, num_classes); stages at strides 2, 4, 8, 16, 32.

    `width` multiplies all channels; `pooled`, `inner` and `last` are the modules of the last three stages: channels of
    the pool branch, channels within the 7-tap branches, and how many. `strides` are those of the first convolution, the
    two pools and the two reductions. `paddings` is 0 in the paper, for the first stages and for the reductions; 1 keeps
    ceil(cells / stride) cells, for inputs under 75 cells.
    """

    small: ClassVar[dict[str, object]] = {
        "width": 0.04,
        "pooled": (32,),
        "inner": (128,),
        "last": 1,
        "strides": (1, 1, 2, 2, 1),
        "paddings": (1, 1),
    }
    others: ClassVar[dict[str, object]] = {
        "pooled": (96,),
        "inner": (192,),
        "strides": (1, 1, 2, 1, 2),
        "paddings": (0, 1),
    }
    renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"\.conv\.", ".0."),
        (r"\.bn\.", ".1."),
        (r"^Conv2d_(\d\w)_\dx\d", r"conv\1"),
        (r"^(Mixed_\w+\.branch[13]x[13])\.", r"\1.0."),
        (r"^(Mixed_\w+\.branch_pool)\.", r"\1.1."),
        (r"^Mixed_", "mixed"),
        (r"^AuxLogits", "auxiliary"),
        (r"_1\.", ".0."),
        (r"_2\.", ".1."),
        (r"_3\.", ".2."),
        (r"_4\.", ".3."),
        (r"_5\.", ".4."),
        (r"_2a\.", ".1.axis1."),
        (r"_2b\.", ".1.axis0."),
        (r"_3a\.", ".2.axis1."),
        (r"_3b\.", ".2.axis0."),
    )

    def __init__(
        self,
        width: float = 1.0,
        *,
        ndim: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        pooled: tuple[int, ...] = (32, 64, 64),
        inner: tuple[int, ...] = (128, 160, 160, 192),
        last: int = 2,
        strides: tuple[OneOrEach, ...] = (2, 2, 2, 2, 2),
        paddings: tuple[int, int] = (0, 0),
        auxiliary: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        nd = Nd(ndim)
        build, (stem, reduce) = Builder(nd, width), paddings
        a, b, c, d, e = map(build.channels, (32, 32, 64, 80, 192))
        self.conv1a, self.conv2a = build.cut(in_channels, 32, strides[0], stem), build.cut(a, 32, 1, stem)
        self.conv2b, self.maxpool1 = build.chain(b, (64, 3))[0], nd.MaxPool(3, nd.each(strides[1]), stem)
        self.conv3b, self.conv4a = build.chain(c, (80, 1))[0], build.cut(d, 192, 1, stem)
        self.maxpool2 = nd.MaxPool(3, nd.each(strides[2]), stem)
        self.parts = [["conv1a", "conv2a", "conv2b"], ["maxpool1", "conv3b", "conv4a"], ["maxpool2"], [], []]

        def add(stage: int, made: tuple[nn.Module, int]) -> int:
            """Append a module under the publisher's letter (stage 5 starts with b, as its pool is a); its channels."""
            parts = self.parts[stage - 3]
            parts.append(f"mixed{stage}{chr(ord('a') + len(parts))}")
            self.add_module(parts[-1], made[0])
            return made[1]

        for channels in pooled:
            e = add(5, build.mixed_a(e, channels))
        e = add(6, build.reduce_a(e, strides[3], reduce))
        for channels in inner:
            e = add(6, build.mixed_c(e, channels))
        self.heads = {self.parts[3][-1]: "auxiliary"} if auxiliary else {}
        if auxiliary:
            self.auxiliary = AuxiliaryHead(build, e, num_classes)
        e = add(7, build.reduce_c(e, strides[4], reduce))
        for _ in range(last):
            e = add(7, build.mixed_e(e))
        self.dropout, self.fc, self.nd = Dropout(dropout), nn.Linear(e, num_classes), nd
        self.steps = [
            (3, strides[0], stem),
            (3, 1, stem),
            (3, strides[1], stem),
            (3, 1, stem),
            (3, strides[2], stem),
            (3, strides[3], reduce),
            (3, strides[4], reduce),
        ]
