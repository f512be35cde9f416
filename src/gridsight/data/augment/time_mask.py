"""Hide a stretch of time in each spectrogram (SpecAugment: Park et al., arXiv:1904.08779, section 2).

Deviation: the fill is the channel's mean over the item, which is the paper's zero in data normalised to mean zero.
"""

from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.items import hide


@AUGMENTS.register(
    "time_mask",
    ndims=(2,),  # it names one of a spectrogram's two axes; on other grids `cutout` does the same
    count=lambda ndim: 2,
    default=0.2,
    most=1.0,
    domains=("spectrum",),
    label_risk="",
)
def time_mask(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """(N, C, mel, time) with up to `strength` of the last axis hidden, in one piece."""
    return hide(x, {1: (strength * u[:, 0], u[:, 1])})
