"""Gradient: how the answer moves with each cell (Simonyan, Vedaldi and Zisserman, arXiv:1312.6034, section 3).

Differs: signed, and channels are added up; the source takes the largest absolute channel (`reduce="largest"`).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._passes import gradient
from gridsight.core.errors import UsageError, nearest
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "gradient",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=False,
    linear="weights",
    sound=False,
    unsound="says where the answer is sensitive, which need not be where its evidence lies",
    source="Simonyan et al., arXiv:1312.6034",
)
@dataclass(frozen=True)
class Gradient:
    """d f / d x, in units of the answer over those of the input; `reduce` is "sum" or "largest" (absolute) channel."""

    reduce: str = "sum"

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        if self.reduce not in ("sum", "largest"):
            raise UsageError(f"there is no reduce {self.reduce!r}; {nearest(self.reduce, ('sum', 'largest'))}")
        with undisturbed(net):
            _, slope = gradient(net, x, target)
        values = slope.sum(1) if self.reduce == "sum" else slope.abs().amax(1)
        return Map(values=values, channels=slope, passes=len(x), backward=len(x))
