"""Small parts that several architectures share."""

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

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
    padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
    return nd.Conv(c_in, c_out, kernel, nd.each(stride), padding, dilation, groups, bias)


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


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, but never below 90 % of `channels` (the rule of the MobileNet code).

    >>> [round_channels(c) for c in (3, 36, 44.8, 11)]
    [8, 40, 48, 16]
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


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
        raise UsageError(f"spatial size {times(spatial)} is too small: this network needs at least {times(minimum)}")
    return tuple(left)


def times(spatial: Sequence[int]) -> str:
    """Sizes as people write them.

    >>> times((28, 28))
    '28 x 28'
    """
    return " x ".join(map(str, spatial))
