"""Change gain and offset of each item: brightness and contrast of a picture (Howard, arXiv:1312.5402, section 2).

Deviation: the unit of the offset is the item's own deviation over all its cells, so that nothing need be known of the
data's range or normalisation. On raw sound the offset is left out: a constant is not heard.
"""

from torch import Tensor

from gridsight.data.augment import AUGMENTS
from gridsight.nn.items import deviation


@AUGMENTS.register(
    "contrast",
    ndims=(1, 2, 3),
    count=lambda ndim: 2,
    default=0.2,
    most=1.0,
    domains=("grid", "signal"),
    signal={"offset": False},
    label_risk="where the height of a value is the label (a reading in known units)",
)
def contrast(x: Tensor, u: Tensor, strength: float, offset: bool = True) -> Tensor:
    """(N, C, *spatial) times 1 +- strength, plus +- strength deviations of the item; both uniform, one an item."""
    shape = (len(x), *[1] * (x.dim() - 1))
    v = strength * (2 * u.to(x.dtype) - 1)
    gained = x * (1 + v[:, 0]).view(shape)
    if not offset:
        return gained
    return gained + v[:, 1].view(shape) * deviation(x)
