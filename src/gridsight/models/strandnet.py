"""StrandNet: a network on DNA that gives a sequence and its reverse complement the same answer, exactly and always.

For signals that lie on either strand, such as binding sites of transcription factors, where the strand that a file
happens to hold says nothing. Reverse-complement parameter sharing after Shrikumar et al. (bioRxiv doi:10.1101/103663)
and Zhou et al. (MLCB 2022, PMLR 165:1): see `nn/strand.py`. What differs: dilated residual blocks in place of pools
(every layer keeps the length, since a stride would look at other cells from the other end), norms whose statistics the
strands share, and a head that reads the means of `grid` cells and the largest value anywhere.

Shapes: (N, 4, L) -> stages (N, 2 widths[i], L), the two strands' features in the order of the given one ->
(N, num_classes). Letters must be in the order A C G T: the complement of channel i is channel 3 - i.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.models import MODELS
from gridsight.nn import masked
from gridsight.nn.dropout import Dropout
from gridsight.nn.nd import Nd, he_init
from gridsight.nn.net import Net
from gridsight.nn.strand import StrandConv, StrandNorm


class Stage(nn.Module):
    """Convolution, norm, ReLU, added to what came in where the width stays: (N, 2 c_in, L) -> (N, 2 width, L)."""

    def __init__(self, c_in: int, width: int, kernel: int, dilation: int, first: bool) -> None:
        super().__init__()
        self.conv = StrandConv(c_in, width, kernel, dilation, first=first)
        self.norm = StrandNorm(width)
        self.residual = not first and c_in == width

    def forward(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        y = self.norm(self.conv(masked.fill(x, mask)), mask).relu()
        return x + y if self.residual else y


@MODELS.register(
    "strandnet",
    ndims=(1,),
    ndims_reason="a strand of DNA has one axis, along which it is read backwards",
    alphabet="dna",
    paper="after doi:10.1101/103663",
    published=None,
    parameters_published=None,
    spatial=(200,),
    masked=True,
)
class StrandNet(Net):
    """(N, in_channels, L) -> logits (N, num_classes), equal for `nn.strand.reverse_complement` of the input.

    `kernels` and `dilations` have one entry a stage; cells of the head count from the start of either strand.
    """

    small: ClassVar[dict[str, object]] = {"widths": (6, 6, 8), "kernels": (5, 3, 3), "dilations": (1, 2, 1), "grid": 2}

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 32, 32, 32),
        *,
        ndim: int = 1,
        in_channels: int = 4,
        num_classes: int = 2,
        kernels: tuple[int, ...] = (15, 5, 5, 5),
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        grid: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if ndim != 1:
            raise UsageError(f"strandnet reads sequences, ndim 1, not {ndim}")
        if not len(widths) == len(kernels) == len(dilations):
            raise UsageError("strandnet takes as many kernels and dilations as widths, one a stage")
        if not all(kernel % 2 for kernel in kernels):
            raise UsageError(f"a kernel must be odd so that it has a centre, not {kernels}")
        self.grid = grid
        self.stages = nn.ModuleList(
            Stage(c_in, width, kernels[i], dilations[i], first=i == 0)
            for i, (c_in, width) in enumerate(pairwise((in_channels, *widths)))
        )
        self.cells = Nd(1).AdaptiveAvgPool(grid)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(widths[-1] * (grid + 1), num_classes)
        he_init(self)

    def forward_stages(self, x: Tensor, mask: masked.Mask = None) -> Iterator[Tensor]:
        if x.shape[2] < self.grid:
            raise UsageError(f"strandnet with these arguments needs {self.grid} letters, not {x.shape[2]}")
        for stage in self.stages:
            yield (x := stage(x, mask))

    def forward_head(self, x: Tensor, mask: masked.Mask = None) -> Tensor:
        given, other = x.chunk(2, 1)
        # what is at the start of one strand is at the end of the other
        strands = [self._read(given, mask, mirrored=False), self._read(other, mask, mirrored=True)]
        return self.fc(self.dropout(torch.stack(strands).mean(0)))

    def _read(self, x: Tensor, mask: masked.Mask, mirrored: bool) -> Tensor:
        """The means of `grid` cells and the maximum of one strand's features: (N, C, L) -> (N, C (grid + 1))."""
        cells = self.cells(x) if mask is None else masked.cells(x, mask, (self.grid,))
        peak = masked.fill(x, mask).amax(2)  # after ReLU nothing is below 0
        return torch.cat([(cells.flip(2) if mirrored else cells).flatten(1), peak], 1)
