"""ResNets on video: Tran et al., "A closer look at spatiotemporal convolutions for action recognition", 1711.11248.

The first axis is time, the others are space. R3D: every convolution spans both. MC3: from the second stage on they span
space alone. R(2+1)D: each is a convolution over space, a norm, a ReLU and a convolution over time, with as many
channels between as make it have the parameters of the full one. Keys, initialisation and 3-D outputs equal
torchvision's (`torchvision.models.video`). With two axes, time and one of space, it is (1+1)D.

What differs from the paper, as torchvision: both convolutions of a block get the middle channels that the paper's
formula (section 3.5) gives for the first; R(2+1)D's stem has 45, where the formula gives 83.

Shapes: (N, 3, T, H, W) -> stem (N, 64, T, H/2, W/2) -> (N, 64, T, H/2, W/2), (N, 128, T/2, H/4, W/4), ...
-> (N, 512, T/8, H/16, W/16) -> (N, 400); MC3 keeps T.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, ClassVar

from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.blocks import same_conv
from gridsight.nn.nd import Nd, OneOrEach, he_init
from gridsight.nn.net import Net

SPANS = ("all", "space", "split")
"""What a convolution spans: time and space, space alone, or space and then time."""


def middle_channels(kernel: Sequence[int], c_in: int, c_out: int) -> int:
    """Channels between space and time with which the two convolutions have the parameters of the one they replace.

    >>> middle_channels((3, 3, 3), 64, 64)
    144
    """
    time, space = kernel[0], prod(kernel[1:])
    return time * space * c_in * c_out // (space * c_in + time * c_out)


def span_conv(
    nd: Nd, spans: str, c_in: int, c_out: int, kernel: tuple[int, ...], stride: tuple[int, ...], middle: int
) -> nn.Module:
    """The convolution of one kind; over space alone it does not stride in time."""
    if spans == "all":
        return same_conv(nd, c_in, c_out, kernel, stride)
    space_kernel, space_stride = (1, *kernel[1:]), (1, *stride[1:])
    if spans == "space":
        return same_conv(nd, c_in, c_out, space_kernel, space_stride)
    ones = (1,) * (nd.ndim - 1)
    space = same_conv(nd, c_in, middle, space_kernel, space_stride)
    time = same_conv(nd, middle, c_out, (kernel[0], *ones), (stride[0], *ones))
    return nn.Sequential(space, nd.BatchNorm(middle), nn.ReLU(), time)


class Block(nn.Module):
    """relu(shortcut(x) + residual(x)), the residual two convolutions with norms; x and its mask to the same."""

    def __init__(self, nd: Nd, spans: str, c_in: int, width: int, kernel: tuple[int, ...], stride: int) -> None:
        super().__init__()
        steps = tuple(1 if axis == 0 and spans == "space" else stride for axis in range(nd.ndim))
        middle, ones = middle_channels(kernel, c_in, width), nd.each(1)
        first = span_conv(nd, spans, c_in, width, kernel, steps, middle)
        second = span_conv(nd, spans, width, width, kernel, ones, middle)
        self.conv1 = nn.Sequential(first, nd.BatchNorm(width), nn.ReLU())
        self.conv2 = nn.Sequential(second, nd.BatchNorm(width))
        self.downsample = nn.Sequential()
        if c_in != width or stride != 1:
            self.downsample = nn.Sequential(same_conv(nd, c_in, width, 1, steps), nd.BatchNorm(width))
        self.steps = steps

    def forward(self, x: Tensor, mask: masked.Mask = None) -> tuple[Tensor, masked.Mask]:
        shortcut, after = masked.run(self.downsample, x, mask)
        residual, _ = masked.run((self.conv1, self.conv2), x, mask)
        return (residual + shortcut).relu(), after


TAGS: dict[str, Any] = {
    "ndims": (2, 3),
    "ndims_reason": "the first axis is time and another one is space: with one axis it is a ResNet",
    "paper": "arXiv:1711.11248",
    "spatial": (16, 112, 112),
    "masked": True,
    "not_inflated": "an axis is added before the first, which is time",
    "publisher": "torchvision",
    "fingerprint_spatial": (8, 56, 56),
}


def on_kinetics(top1: float) -> str:
    """The published accuracy in words."""
    return f"{top1:.2f} % top-1 on Kinetics-400 (clips of 16 frames), torchvision V1 weights"


@MODELS.register(
    {"r3d_18": {"spans": ("all",) * 4}}, **TAGS, published=on_kinetics(63.20), parameters_published=33_371_472
)
@MODELS.register(
    {"mc3_18": {"spans": ("all", "space", "space", "space")}},
    **TAGS,
    published=on_kinetics(63.96),
    parameters_published=11_695_440,
)
@MODELS.register(
    {"r2plus1d_18": {"spans": ("split",) * 4}}, **TAGS, published=on_kinetics(67.46), parameters_published=31_505_325
)
class ResNet3d(Net):
    """(N, in_channels, time, *space) -> logits (N, num_classes); stages: the stem, then one a group of blocks.

    `spans`, one a group of blocks, says what their convolutions span: "all", "space" or "split" (space, then time);
    the stem is split where the first group is. Group i has `width` * 2^i channels and `depths[i]` blocks.
    """

    small: ClassVar[dict[str, object]] = {"depths": (1, 1, 1, 1), "width": 4}
    others: ClassVar[dict[str, object]] = {"spans": ("all", "split", "split", "space")}

    def __init__(
        self,
        spans: tuple[str, ...],
        depths: tuple[int, ...] = (2, 2, 2, 2),
        *,
        ndim: int = 3,
        in_channels: int = 3,
        num_classes: int = 400,
        width: int = 64,
        kernel: OneOrEach = 3,
    ) -> None:
        super().__init__()
        if ndim < 2:
            raise UsageError(f"a video has an axis of time and at least one of space, ndim 2 or 3, not {ndim}")
        if len(spans) != len(depths) or not set(spans) <= set(SPANS):
            raise UsageError(f"spans names {', '.join(SPANS)} for each of {len(depths)} groups of blocks, not {spans}")
        nd = Nd(ndim)
        kernel, space = nd.each(kernel), (7,) * (ndim - 1)
        self.strides = [(1, *[2] * (ndim - 1))]
        stem = "split" if spans[0] == "split" else "all"
        conv = span_conv(nd, stem, in_channels, width, (3, *space), self.strides[0], 45 * width // 64)
        # the publisher's keys count the layers of a split stem in one row
        layers = conv if isinstance(conv, nn.Sequential) else [conv]
        self.stem = nn.Sequential(*layers, nd.BatchNorm(width), nn.ReLU())
        c_in = width
        for i, depth in enumerate(depths):
            layer = nn.Sequential()
            for j in range(depth):
                block = Block(nd, spans[i], c_in, width << i, kernel, 2 if i and not j else 1)
                self.strides.append(block.steps)
                layer.append(block)
                c_in = width << i
            self.add_module(f"layer{i + 1}", layer)
        self.groups = len(depths)
        self.fc = nn.Linear(c_in, num_classes)
        he_init(self, linear_std=0.01)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        x, mask = masked.run(self.stem, x, mask)
        yield x
        for i in range(self.groups):
            for block in self.get_submodule(f"layer{i + 1}").children():
                x, mask = block(x, mask)
            yield x

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        return self.fc(masked.mean(x, masked.shrink(mask, *self.strides)))
