"""The blocks of residual networks: plain or bottleneck, after or before activation, grouped, wide, gated, antialiased.

Sources: He et al., arXiv:1512.03385 and arXiv:1603.05027 (pre-activation); groups: Xie et al., arXiv:1611.05431
(ResNeXt); width of the k-tap convolutions alone: Zagoruyko and Komodakis, arXiv:1605.07146 (Wide ResNet); a gate on the
residual before it is added: arXiv:1709.01507 (SE), arXiv:1807.06521 (CBAM); a blur in place of each stride:
arXiv:1904.11486, in the places of its authors' code: before the next convolution, and before a projection.
Shapes: (N, c_in, *spatial) -> (N, c_out, *ceil(spatial / stride)).
"""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import pad

from gridsight.nn import masked
from gridsight.nn.blocks import same_conv
from gridsight.nn.blurpool import BlurPool
from gridsight.nn.gates import Cbam, SqueezeExcite
from gridsight.nn.nd import Nd, OneOrEach

GATES: dict[str, type[SqueezeExcite] | type[Cbam]] = {"se": SqueezeExcite, "cbam": Cbam}
REDUCTION = 16
"""Channels a hidden unit of a gate, in both papers; fewer than 4 hidden units occur in none of their networks."""


class Pad(nn.Module):
    """Option A, a shortcut without parameters: every `stride`-th cell, the new channels zero, half on either side."""

    def __init__(self, stride: tuple[int, ...], new_channels: int) -> None:
        super().__init__()
        self.cells = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
        self.padding = (0, 0) * len(stride) + (new_channels // 2, new_channels - new_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[self.cells], self.padding)


class Block(nn.Module):
    """relu(shortcut(x) + residual(x)); the residual is k-k convolutions, or 1-k-1 in a bottleneck, each with a norm.

    The k-tap convolutions have `groups` and `widen` times the channels; a bottleneck's other ones stay as they are.
    """

    pre: ClassVar[bool] = False

    def __init__(
        self,
        nd: Nd,
        c_in: int,
        width: int,
        bottleneck: bool,
        kernel: OneOrEach,
        stride: OneOrEach,
        dilation: OneOrEach,
        shortcut: str,
        activated: bool,
        groups: int,
        widen: int,
        gate: str | None,
        blur: int,
    ) -> None:
        super().__init__()
        inner, c_out = width * widen, 4 * width if bottleneck else width * widen
        norms = (c_in, inner, inner) if self.pre else (inner, inner, c_out)
        self.c_out, self.stride = c_out, nd.each(stride)
        strided = any(s != 1 for s in self.stride)
        self.blur = BlurPool(nd, self.stride, blur) if blur and strided else None
        step = 1 if self.blur else self.stride
        taps = kernel, step, dilation, groups
        convs: list[tuple[Any, ...]] = [(c_in, inner, *taps), (inner, c_out, kernel, 1, dilation, groups)]
        if bottleneck:
            convs = [(c_in, inner, 1), (inner, inner, *taps), (inner, c_out, 1)]
        # a block after the stem gets an activated tensor: with pre-activation its first norm would be a second one
        self.bn1 = nn.Identity() if self.pre and activated else nd.BatchNorm(norms[0])
        self.conv1 = same_conv(nd, *convs[0])
        self.conv2, self.bn2 = same_conv(nd, *convs[1]), nd.BatchNorm(norms[1])
        self.conv3 = same_conv(nd, *convs[2]) if bottleneck else None
        self.bn3 = nd.BatchNorm(norms[2]) if bottleneck else None
        self.gate = None if gate is None else GATES[gate](nd, c_out, max(4, c_out // REDUCTION))

        self.joins = shortcut != "none"
        self.projects = self.joins and (c_in != c_out or strided)
        self.downsample: nn.Module = nn.Identity()
        if not self.projects:
            return
        if shortcut == "pad":
            self.downsample = Pad(nd.each(step), c_out - c_in)
        elif self.pre:
            self.downsample = same_conv(nd, c_in, c_out, 1, step)
        else:
            self.downsample = nn.Sequential(same_conv(nd, c_in, c_out, 1, step), nd.BatchNorm(c_out))

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        y, real = masked.conv(self.conv1, x, mask)
        y = masked.norm(self.bn1, y, real).relu()
        if self.conv3 is None or self.bn3 is None:
            y, real = masked.conv(self.conv2, *self.blurred(y, real))
            y = masked.norm(self.bn2, y, real)
        else:
            y, real = masked.conv(self.conv2, y, real)
            y = masked.norm(self.bn2, y, real).relu()
            y, real = masked.conv(self.conv3, *self.blurred(y, real))
            y = masked.norm(self.bn3, y, real)
        return self.joined(y, real, x, mask).relu()

    def blurred(self, x: Tensor, mask: masked.Mask) -> tuple[Tensor, masked.Mask]:
        """Where a blur takes the place of the block's stride, x and its mask after it."""
        return (x, mask) if self.blur is None else (self.blur(x, mask), masked.shrink(mask, self.stride))

    def joined(self, y: Tensor, real: masked.Mask, x: Tensor, mask: masked.Mask) -> Tensor:
        """The residual y, gated, and what the shortcut (where there is one) makes of x; each with its mask."""
        y = y if self.gate is None else self.gate(y, real)
        return y + self.shortcut(x, mask) if self.joins else y

    def shortcut(self, x: Tensor, mask: masked.Mask) -> Tensor:
        """x in the shape of the residual."""
        x, mask = self.blurred(x, mask)
        if not isinstance(self.downsample, nn.Sequential):
            return self.downsample(x)
        conv, norm = self.downsample
        return masked.norm(norm, *masked.conv(conv, x, mask))

    def make_identity(self) -> None:
        """Start with residual 0."""
        nn.init.zeros_((self.bn3 or self.bn2).get_parameter("weight"))


class PreBlock(Block):
    """shortcut(x) + residual(x) with a norm and a relu before each convolution; a projection reads relu(norm(x))."""

    pre = True

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        activated = masked.norm(self.bn1, x, mask).relu()
        y, real = masked.conv(self.conv1, activated, mask)
        y = masked.norm(self.bn2, y, real).relu()
        if self.conv3 is None or self.bn3 is None:
            y, real = masked.conv(self.conv2, *self.blurred(y, real))
        else:
            y, real = masked.conv(self.conv2, y, real)
            y = masked.norm(self.bn3, y, real).relu()
            y, real = masked.conv(self.conv3, *self.blurred(y, real))
        return self.joined(y, real, activated if self.projects else x, mask)

    def make_identity(self) -> None:
        """Start with residual 0: no norm follows the last convolution, so its own weights are zero."""
        nn.init.zeros_((self.conv3 or self.conv2).get_parameter("weight"))
