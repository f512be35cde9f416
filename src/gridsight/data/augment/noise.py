"""Add white Gaussian noise to each item (Sietsma and Dow, Neural Networks 4(1), 1991).

One number a cell would make `u` as large as the batch, so u (N, 2) is 48 bits that name the item's own noise, and its
cells are hashes of those and of their place (`core.seed`, SplitMix64): a pure function of u, any batch, any device. One
64-bit hash serves four cells: 16 bits choose one of 65,536 equally likely values of the normal distribution (the
inversion method), which costs one look-up a cell where Box and Muller's formula takes four functions.
"""

from functools import cache

import torch
from torch import Tensor

from gridsight.core.seed import expand
from gridsight.data.augment import AUGMENTS
from gridsight.nn.items import deviation


@cache
def _quantiles(device: torch.device) -> Tensor:
    """The middles of 65,536 equal parts of the normal distribution (from -4.3 to 4.3), scaled to deviation 1."""
    parts = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    values = torch.special.ndtri(parts)
    return (values / values.square().mean().sqrt()).to(torch.float32).to(device)


def normal(u: Tensor, count: int) -> Tensor:
    """(N, count) standard normal numbers, float32, white within a row and between rows, for u (N, 2)."""
    bits = (u * (1 << 24)).to(torch.int64)
    hashes = expand((bits[:, 0] << 24) + bits[:, 1], (count + 3) // 4)
    quarters = hashes.view(torch.int16)[:, :count].to(torch.int32) + (1 << 15)
    return _quantiles(u.device).index_select(0, quarters.flatten()).view(len(u), count)


@AUGMENTS.register(
    "noise",
    ndims=(1, 2, 3),
    count=lambda ndim: 2,
    default=0.05,
    most=10.0,
    domains=("grid", "signal"),
    label_risk="",
)
def noise(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, *spatial) plus noise whose deviation is `strength` times the item's own."""
    return torch.addcmul(x, normal(u, x[0].numel()).to(x.dtype).view(x.shape), strength * deviation(x))
