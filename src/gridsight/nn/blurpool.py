"""BlurPool: a blur before a stride, so that a shift of the input by one cell does not change what is kept at random.

Zhang, "Making convolutional networks shift-invariant again", arXiv:1904.11486: a strided convolution or pool becomes
the same layer with stride 1, then this. The blur is binomial (3 taps: 1 2 1) and not trained. What differs from the
paper's code: taps are odd in number, so that a cell stays where it is, and near a border each cell is the weighted mean
of the cells that are there, where the code reflects them. A constant then stays the same constant up to the border,
and cells that a mask marks as padding weigh nothing.

Shapes: (N, C, *spatial) -> (N, C, *ceil(spatial / stride)).
"""

from math import comb, prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from gridsight.core.errors import UsageError
from gridsight.nn import masked
from gridsight.nn.nd import Nd, OneOrEach

CONVS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class BlurPool(nn.Module):
    """The weighted mean of `taps` cells along every axis whose stride is above 1; every stride-th cell is kept."""

    kernel: Tensor

    def __init__(self, nd: Nd, stride: OneOrEach = 2, taps: int = 3) -> None:
        super().__init__()
        if taps < 3 or taps % 2 == 0:
            raise UsageError(f"a blur has 3, 5, 7 ... taps, not {taps}")
        self.stride = nd.each(stride)
        rows = [[comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps)] if s > 1 else [1.0] for s in self.stride]
        kernel = torch.ones(1, 1)
        for row in rows:
            kernel = kernel[..., None] * torch.tensor(row)
        # not a weight: publishers' keys do not have it
        self.register_buffer("kernel", kernel, persistent=False)
        self.middle = prod(max(row) for row in rows)
        self.padding = tuple(n // 2 for n in kernel.shape[2:])

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        if mask is None:
            there = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        else:
            there = mask[:, None].to(x.dtype)
        # around a cell that is there, its own weight at least is there; what stands elsewhere is not read
        weight = self._blur(there).clamp_min(self.middle)
        return self._blur(masked.fill(x, mask)) / weight

    def _blur(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, *[-1] * (x.dim() - 1))
        return CONVS[x.dim() - 2](x, kernel, None, self.stride, self.padding, 1, channels)
