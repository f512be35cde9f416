"""The other strand of DNA: reverse complements of batches, and layers that treat both strands alike.

Channels are A C G T in this order (`data/alphabet.py`), so the complement of a letter lies at the mirrored channel and
a reverse complement is a batch mirrored along both axes. Layers after Shrikumar, Greenside and Kundaje, bioRxiv
doi:10.1101/103663 (RCPS), which are the group convolutions of Cohen and Welling (arXiv:1602.07576) for the group of
the two strands: features come in two halves, (N, 2 C, L), what was seen on the given strand and on the other. For the
reverse complement of the input they are the same with halves exchanged and L mirrored, whatever the weights.
"""

import torch
from torch import Tensor, nn

from gridsight.nn import masked


def reverse_complement(x: Tensor) -> Tensor:
    """(N, 4, L) as the other strand reads; cells of zeros at either end (padding) stay where they are. An involution.

    With padding an item of a batch is therefore what its own reverse complement would be in that batch.
    """
    size = x.shape[2]
    there = (x != 0).any(1).to(torch.uint8)
    first, last = there.argmax(1)[:, None], size - 1 - there.flip(1).argmax(1)[:, None]
    place = torch.arange(size, device=x.device)
    inside = (place >= first) & (place <= last)
    return x.flip(1).gather(2, torch.where(inside, first + last - place, place)[:, None].expand(x.shape))


class StrandConv(nn.Conv1d):
    """Convolution that keeps the length: (N, 2 c_in, L) -> (N, 2 c_out, L); `first`: of letters, (N, c_in, L).

    `weight` (c_out, c_in or 2 c_in, kernel) makes the first half; the other's is the same as the other strand sees it.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, dilation: int = 1, *, first: bool = False) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(c_in if first else 2 * c_in, c_out, kernel, padding=padding, dilation=dilation, bias=False)
        self.strand = 0 if first else c_in
        """Channels of one strand of the input; 0: letters, which are both strands' own."""

    def forward(self, x: Tensor) -> Tensor:
        mirrored = self.weight.flip(2)
        other = mirrored.roll(self.strand, 1) if self.strand else mirrored.flip(1)
        weight = torch.cat([self.weight, other])
        return nn.functional.conv1d(x, weight, None, self.stride, self.padding, self.dilation)


class StrandNorm(nn.Module):
    """Batch norm of (N, 2 C, L) with the statistics and weights of a feature shared by its two strands."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        both = None if mask is None else mask.repeat_interleave(2, 0)
        return masked.norm(self.norm, x.reshape(2 * len(x), -1, x.shape[2]), both).reshape(x.shape)
