"""Mirror the last axis of some items: the oldest augmentation of pictures (Krizhevsky et al., NIPS 2012, section 4.1).

Deviation: one file for 1-D (time runs backwards), 2-D (left and right) and 3-D (left and right of a volume). At
strength 1 an item is mirrored in every second epoch (Jordan, arXiv:2404.00498, section 3.6): two epochs show both sides
of each, where independent draws show one side twice of every second item.
"""

from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.warp import identity, warp_exact


def matrix(u: Tensor, strength: float, spatial: tuple[int, ...]) -> Tensor:
    """(N, ndim, ndim + 1) for u (N, 1): -1 on the last axis where u < strength / 2."""
    move = identity(len(u), len(spatial), u.device)
    move[:, -1, -2] -= 2 * (u[:, 0] < strength / 2).to(move.dtype)
    return move


@AUGMENTS.register(
    "flip",
    ndims=(1, 2, 3),
    count=lambda ndim: 1,
    default=1.0,
    most=2.0,
    domains=("grid",),
    label_risk="characters, left and right, and signals whose time has a direction change their meaning in a mirror",
    matrix=matrix,
    window=True,
    exact=True,
    alternating=True,
)
def flip(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, *spatial) with a share strength / 2 of the items mirrored: 1.0 mirrors half of them, 2.0 all."""
    return warp_exact(x, matrix(u, strength, tuple(x.shape[2:])))
