"""Hide one box of each item (DeVries and Taylor, arXiv:1708.04552; Zhong et al., arXiv:1708.04896).

Deviation: the box lies wholly inside, its side is random, and it is filled with the channel's mean over the item.
"""

from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.items import hide


@AUGMENTS.register(
    "cutout",
    ndims=(1, 2, 3),
    count=lambda ndim: 1 + ndim,
    default=0.3,
    most=1.0,
    domains=("grid", "signal"),
    label_risk="a small thing that decides the label may be hidden",
)
def cutout(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, *spatial) with a box hidden whose side is up to `strength` of every axis, the same share on all."""
    return hide(x, {axis: (strength * u[:, 0], u[:, 1 + axis]) for axis in range(x.dim() - 2)})
