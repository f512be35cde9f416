"""Cut a window out of each item and zoom it to full size: the scale half of Szegedy et al. (arXiv:1409.4842, sec. 6).

Deviation: the window keeps the aspect (`affine` shears), and its side, not its area, is uniform.
"""

import torch
from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.warp import warp


def matrix(u: Tensor, strength: float, spatial: tuple[int, ...]) -> Tensor:
    """(N, ndim, ndim + 1) for u (N, 1 + ndim): the share cut from every axis, then where the window lies on each."""
    cut = strength * u[:, :1]
    sizes = torch.tensor(spatial, device=u.device, dtype=u.dtype)
    keep = (1 - cut)[:, :, None] * torch.eye(len(spatial), device=u.device)
    offset = cut * sizes * (u[:, 1:] - 0.5)  # the window always lies inside the grid
    return torch.cat([keep, offset[:, :, None]], 2)


@AUGMENTS.register(
    "crop",
    ndims=(1, 2, 3),
    count=lambda ndim: 1 + ndim,
    default=0.3,
    most=0.95,
    domains=("grid", "signal"),
    label_risk="what decides the label may be cut away",
    matrix=matrix,
    window=True,
    exact=False,
)
def crop(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, *spatial): up to `strength` of each axis cut away (same share on all), the rest resized to full size."""
    return warp(x, matrix(u, strength, tuple(x.shape[2:])))
