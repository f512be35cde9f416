"""Rotate, zoom and shear each item about its middle (Simard, Steinkraus and Platt, ICDAR 2003, section 2).

In 2-D one angle, one zoom, one shear; in 3-D an angle about each axis (applied first axis last), one zoom, and a shear
between each pair of neighbouring axes; in 1-D zoom alone, which is a time stretch (on sound the pitch moves with it).
Angles are in cells: on a grid whose spacing differs between axes a rotation is, in millimetres, also a shear.
"""

import math

import torch
from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.warp import warp

DEGREES, ZOOM, SHEAR = 15.0, 0.1, 0.1
"""The largest rotation, zoom and shear (cells a cell) at strength 1."""

_NUMBERS = {1: 1, 2: 3, 3: 6}


def matrix(u: Tensor, strength: float, spatial: tuple[int, ...]) -> Tensor:
    """(N, ndim, ndim + 1) for u (N, 1, 3 or 6): zoom, then angles, then shears."""
    ndim = len(spatial)
    v = strength * (2 * u - 1)
    a = torch.eye(ndim, device=u.device).repeat(len(u), 1, 1)
    planes = {1: [], 2: [(0, 1)], 3: [(0, 1), (0, 2), (1, 2)]}[ndim]
    angles, shears = v[:, 1 : 1 + len(planes)], v[:, 1 + len(planes) :]
    for (i, j), angle in zip(planes, (angles * math.radians(DEGREES)).unbind(1), strict=True):
        # multiplying by a rotation in the plane (i, j) mixes two columns: cheaper than a matrix product
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a_i, a_j = a[:, :, i].clone(), a[:, :, j].clone()
        a[:, :, i], a[:, :, j] = cos * a_i + sin * a_j, cos * a_j - sin * a_i
    for axis in range(ndim - 1):
        a[:, :, axis] += SHEAR * shears[:, axis, None] * a[:, :, axis + 1]
    a = a / (1 + ZOOM * v[:, 0])[:, None, None]  # the matrix looks from the output back: things grow when it shrinks
    return torch.cat([a, a.new_zeros(len(u), ndim, 1)], 2)


@AUGMENTS.register(
    "affine",
    ndims=(1, 2, 3),
    count=lambda ndim: _NUMBERS[ndim],
    default=1.0,
    most=6.0,
    domains=("grid", "signal"),
    label_risk="6 is 9 upside down: rotations over 45 degrees",
    matrix=matrix,
    exact=False,
)
def affine(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, *spatial) turned by up to 15 degrees, zoomed by up to 10 %, sheared by up to 0.1; all times `strength`."""
    return warp(x, matrix(u, strength, tuple(x.shape[2:])))
