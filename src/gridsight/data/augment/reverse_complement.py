"""Read some DNA sequences from the other strand: letters complemented, order reversed.

The usual augmentation of networks on DNA (Zhou, Shrikumar and Kundaje, MLCB 2022, PMLR 165:1), where what is looked for
may lie on either strand; `strandnet` is built so that both strands always give the same answer.
"""

import torch
from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.strand import reverse_complement as other_strand


@AUGMENTS.register(
    "reverse_complement",
    ndims=(1,),
    count=lambda ndim: 1,
    default=1.0,
    most=2.0,
    domains=("grid",),
    alphabet="dna",
    label_risk="genes, promoters and splice sites have a direction, and RNA has one strand only",
)
def reverse_complement(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, L) with a share strength / 2 of the items as their other strand reads: 1.0 half of them, 2.0 all."""
    return torch.where((u[:, 0] < strength / 2)[:, None, None], other_strand(x), x)
