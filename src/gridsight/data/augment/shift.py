"""Shift each item by whole cells: the "random crop from a padded picture" of He et al. (arXiv:1512.03385, section 4.2).

Deviation: uncovered cells repeat the edge (`nn/warp.py` says why) instead of being zero. Whole cells, because a shift
by half a cell is a blur, and because copying is several times cheaper than interpolating.
"""

import torch
from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.warp import identity, warp_exact


def matrix(u: Tensor, strength: float, spatial: tuple[int, ...]) -> Tensor:
    """(N, ndim, ndim + 1) for u (N, ndim): t is a whole number from -most to most, each equally likely."""
    move = identity(len(u), len(spatial), u.device)
    most = torch.tensor([round(strength * size) for size in spatial], device=u.device)
    # u < 1 but u * (2 most + 1) may round up to it: the clamp keeps the top value inside
    move[:, :, -1] = torch.minimum((u * (2 * most + 1)).floor(), 2 * most) - most
    return move


@AUGMENTS.register(
    "shift",
    ndims=(1, 2, 3),
    count=lambda ndim: ndim,
    default=0.1,
    most=1.0,
    domains=("grid", "signal"),
    label_risk="",
    matrix=matrix,
    exact=True,
)
def shift(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, *spatial) moved along every axis by up to `strength` of its size, rounded to whole cells."""
    return warp_exact(x, matrix(u, strength, tuple(x.shape[2:])))
