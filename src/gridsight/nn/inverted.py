"""The inverted residual block of MobileNetV2 and its descendants (Sandler et al., arXiv:1801.04381, section 3).

A residual network narrows, mixes and widens; here the shortcut joins the narrow ends: a 1-tap convolution widens, a
depthwise one mixes cells, a 1-tap one narrows. No activation follows the last (a linear bottleneck): in few channels
it would lose what it sets to zero. MobileNetV3 and EfficientNet put a gate before the last convolution.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from gridsight.nn.blocks import conv_norm_act, keeps_shape
from gridsight.nn.dropout import DropPath
from gridsight.nn.nd import Nd, OneOrEach

Norm = tuple[float, float]
"""Epsilon and momentum (the share of the new value) of a batch norm."""


class Residual(nn.Module):
    """x + block(x), the branch dropped at the rate `drop`; block(x) alone where it changes the shape of x."""

    def __init__(self, block: Iterable[nn.Module], keeps_shape: bool, drop: float = 0.0) -> None:
        super().__init__()
        self.block, self.keeps_shape = nn.Sequential(*block), keeps_shape
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.block(x)) if self.keeps_shape else self.block(x)


class InvertedResidual(Residual):
    """(N, c_in, *spatial) -> (N, c_out, *spatial / stride) through `wide` channels; c_in = wide needs no widening."""

    def __init__(
        self,
        nd: Nd,
        c_in: int,
        wide: int,
        c_out: int,
        kernel: OneOrEach,
        stride: OneOrEach,
        activation: type[nn.Module],
        gate: nn.Module | None = None,
        drop: float = 0.0,
        norm: Norm = (1e-5, 0.1),
    ) -> None:
        widen = [] if wide == c_in else [conv_norm_act(nd, c_in, wide, 1, 1, activation, 1, *norm)]
        mix = conv_norm_act(nd, wide, wide, kernel, stride, activation, wide, *norm)
        narrow = conv_norm_act(nd, wide, c_out, 1, 1, None, 1, *norm)
        parts = [*widen, mix, narrow] if gate is None else [*widen, mix, gate, narrow]
        super().__init__(parts, keeps_shape(nd, c_in, c_out, stride), drop)
