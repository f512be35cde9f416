"""Gates: numbers from 0 to 1 that a network computes from what it sees and multiplies its channels or cells by.

Squeeze and excitation: Hu, Shen and Sun, arXiv:1709.01507, section 3: a mean a channel, two linear maps, a sigmoid.
CBAM: Woo, Park, Lee and Kweon, arXiv:1807.06521, section 3: channels first, then cells. The channel gate adds what one
small network says of the means and of the maxima; the cell gate is a 7-tap convolution over the mean and the maximum
of all channels. The batch norm after that convolution is of the authors' code (Jongchan/attention-module), not of the
paper: its scale starts at 0, so that the gate is one half everywhere at first, and its averages are ten times as long.
Shapes: (N, C, *spatial) -> the same.
"""

import torch
from torch import Tensor, nn

from gridsight.nn import masked
from gridsight.nn.blocks import same_conv
from gridsight.nn.nd import Nd, OneOrEach


class SqueezeExcite(nn.Module):
    """x times a gate a channel; `squeezed` is the width between the two linear maps, which are 1-tap convolutions."""

    def __init__(
        self,
        nd: Nd,
        channels: int,
        squeezed: int,
        activation: type[nn.Module] = nn.ReLU,
        gate: type[nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = nd.Conv(channels, squeezed, 1), nd.Conv(squeezed, channels, 1)
        self.activation, self.gate = activation(), gate()

    def gates(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        """(N, C, *spatial) -> (N, C, 1, ...)."""
        means = masked.mean(x, mask).view(*x.shape[:2], *[1] * (x.dim() - 2))
        return self.gate(self.fc2(self.activation(self.fc1(means))))

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        return x * self.gates(x, mask)


class ChannelGate(nn.Module):
    """CBAM's first gate, (N, C, *spatial) -> (N, C, 1, ...)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        largest = masked.fill(x, mask, torch.finfo(x.dtype).min).flatten(2).amax(2)
        parts = (masked.mean(x, mask), largest)
        total = sum(self.fc2(self.fc1(part).relu()) for part in parts)
        return total.sigmoid().view(*x.shape[:2], *[1] * (x.dim() - 2))


class CellGate(nn.Module):
    """CBAM's second gate, (N, C, *spatial) -> (N, 1, *spatial)."""

    def __init__(self, nd: Nd, kernel: OneOrEach = 7) -> None:
        super().__init__()
        self.conv, self.norm = same_conv(nd, 2, 1, kernel), nd.BatchNorm(1, momentum=0.01)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        both = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return masked.norm(self.norm, self.conv(masked.fill(both, mask)), mask).sigmoid()


class Cbam(nn.Module):
    """The channel gate, then the cell gate."""

    def __init__(self, nd: Nd, channels: int, squeezed: int, kernel: OneOrEach = 7) -> None:
        super().__init__()
        self.channel_gate, self.cell_gate = ChannelGate(channels, squeezed), CellGate(nd, kernel)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        x = x * self.channel_gate(x, mask)
        return x * self.cell_gate(x, mask)
