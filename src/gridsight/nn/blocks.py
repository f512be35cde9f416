"""Small parts that several architectures share."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.nn.nd import Nd, OneOrEach

T = TypeVar("T")

PerStage = int | Sequence[OneOrEach]
"""One int for every stage and axis, or one entry a stage: an int, or one int an axis."""

Step = tuple[OneOrEach, OneOrEach, OneOrEach]
"""Kernel, stride and padding of one convolution or pool."""


def same_conv(
    nd: Nd,
    c_in: int,
    c_out: int,
    kernel: OneOrEach = 3,
    stride: OneOrEach = 1,
    dilation: OneOrEach = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Module:
    """Convolution whose output has ceil(input / stride) cells an axis; kernels must be odd."""
    kernel, dilation = nd.each(kernel), nd.each(dilation)
    if not all(k % 2 for k in kernel):
        raise UsageError(f"a kernel must be odd on every axis so that it has a centre, not {kernel}")
    if c_in % groups or c_out % groups:
        raise UsageError(f"{groups} groups divide neither {c_in} channels nor {c_out}: both must be multiples")
    padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
    return nd.Conv(c_in, c_out, kernel, nd.each(stride), padding, dilation, groups, bias)


class Trim(nn.Module):
    """(N, C, *spatial) without the first `before` and the last `after` cells of each axis."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        spans = [slice(b, -a if a else None) for b, a in zip(before, after, strict=True)]
        self.cells = (slice(None), slice(None), *spans)

    def forward(self, x: Tensor) -> Tensor:
        return x[self.cells]


def even_conv(nd: Nd, c_in: int, c_out: int, kernel: OneOrEach) -> nn.Sequential:
    """Convolution of any kernel that keeps the number of cells; an even one reads one cell more after than before.

    That is "same" padding as in Keras and TensorFlow, which the publishers of networks with even kernels use.
    """
    kernel = nd.each(kernel)
    conv = nd.Conv(c_in, c_out, kernel, padding=tuple(k // 2 for k in kernel), bias=False)
    return nn.Sequential(conv, Trim([1 - k % 2 for k in kernel], [0] * nd.ndim))


def conv_norm_act(
    nd: Nd,
    c_in: int,
    c_out: int,
    kernel: OneOrEach = 3,
    stride: OneOrEach = 1,
    activation: type[nn.Module] | None = nn.ReLU,
    groups: int = 1,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Convolution, batch norm, activation (None: none) under keys 0, 1, 2; `momentum` is the new value's."""
    layers = [same_conv(nd, c_in, c_out, kernel, stride, groups=groups), nd.BatchNorm(c_out, eps, momentum)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def keeps_shape(nd: Nd, c_in: int, c_out: int, stride: OneOrEach) -> bool:
    """Whether a block's input can be added to its output."""
    return c_in == c_out and set(nd.each(stride)) == {1}


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, but never below 90 % of `channels` (the rule of the MobileNet code).

    >>> [round_channels(c) for c in (3, 36, 44.8, 11)]
    [8, 40, 48, 16]
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of `groups` groups out in turn, (N, C, *spatial) to the same; its inverse has C / groups.

    ShuffleNet (Zhang et al., arXiv:1707.01083, section 3.1): what was computed group by group meets in the next layer.

    >>> channel_shuffle(torch.arange(6).view(1, 6, 1), 2).flatten().tolist()
    [0, 3, 1, 4, 2, 5]
    """
    if x.shape[1] % groups:
        raise UsageError(f"{x.shape[1]} channels do not make {groups} equal groups")
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell, (N, C, *spatial) to the same: no cell looks at another."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


NORMS = ("batch", "group", "layer", "instance")


def make_norm(nd: Nd, kind: str, width: int) -> nn.Module:
    """A norm of `width` channels: "batch", or of each item alone: "group" (8 channels a group), "layer", "instance".

    Layer norm is over channels and cells (Ba, Kiros and Hinton, arXiv:1607.06450), instance norm over the cells of each
    channel (Ulyanov et al., arXiv:1607.08022), group norm between the two (Wu and He, arXiv:1803.08494).
    """
    if kind == "batch":
        return nd.BatchNorm(width)
    if kind not in NORMS:
        raise UsageError(f"norm must be {', '.join(NORMS)}, not {kind!r}")
    groups = {"layer": 1, "instance": width, "group": max(1, width // 8)}[kind]
    if width % groups:
        raise UsageError(f"group norm takes a multiple of 8 channels, not {width}")
    return nn.GroupNorm(groups, width)


def average_pool(
    nd: Nd, kernel: OneOrEach, stride: OneOrEach, padding: OneOrEach, ceil_mode: bool = False
) -> nn.Sequential:
    """Mean over windows in which padding counts as zeros; inputs may be smaller than a window, also in 3-D.

    `ceil_mode` keeps an incomplete last window, which zeros complete.
    """
    axes = list(zip(nd.each(padding), nd.each(stride), strict=True))
    ends = [cells for p, s in reversed(axes) for cells in (p, p + ceil_mode * (s - 1))]
    pad = getattr(nn, f"ConstantPad{nd.ndim}d")(tuple(ends), 0.0)
    return nn.Sequential(pad, nd.AvgPool(kernel, stride))


class Branches(nn.ModuleDict):
    """Every branch sees the same (N, C, *spatial); their channels lie one after the other in what comes out."""

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.values()], 1)


class FlatLinear(nn.Linear):
    """(N, channels, *grid) -> (N, width): a weight for every cell; it keeps `channels` for whoever adds an axis."""

    def __init__(self, channels: int, grid: Sequence[int], width: int) -> None:
        super().__init__(channels * math.prod(grid), width)
        self.channels = channels

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(1))


def per_stage(value: int | Sequence[T], stages: int, what: str) -> list[int | T]:
    """One `value` a stage: an int serves them all; else a sequence names each stage's int (or one int an axis)."""
    if isinstance(value, int):
        return [value] * stages
    if len(value) != stages:
        raise UsageError(f"{what} has {len(value)} entries for {stages} stages: give one a stage, or one int for all")
    return list(value)


def grid_after(nd: Nd, spatial: Sequence[int], steps: Sequence[Step]) -> tuple[int, ...]:
    """Cells an axis that are left of `spatial` after convolutions and pools; none left is a `UsageError`."""
    left, minimum = list(spatial), [1] * nd.ndim
    for kernel, stride, padding in steps:
        axes = zip(left, nd.each(kernel), nd.each(stride), nd.each(padding), strict=True)
        left = [(n + 2 * p - k) // s + 1 for n, k, s, p in axes]
    for kernel, stride, padding in reversed(steps):
        axes = zip(minimum, nd.each(kernel), nd.each(stride), nd.each(padding), strict=True)
        minimum = [max(1, (n - 1) * s + k - 2 * p) for n, k, s, p in axes]
    if any(n < least for n, least in zip(spatial, minimum, strict=True)):
        raise UsageError(
            f"spatial size {times(spatial)} is too small: this network needs at least {times(minimum)}; "
            f"train --size {max(minimum)} enlarges the items, or another network takes them as they are"
        )
    return tuple(left)


def times(spatial: Sequence[int]) -> str:
    """Sizes as people write them.

    >>> times((28, 28))
    '28 x 28'
    """
    return " x ".join(map(str, spatial))
