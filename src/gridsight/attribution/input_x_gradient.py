"""Input times gradient: each cell's term of the answer's linear approximation (Shrikumar et al., arXiv:1605.01713).

Differs: the input is measured from a baseline, which is zero where none is given.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import gradient
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "input_x_gradient",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=False,
    linear="terms",
    sound=True,
    source="Shrikumar et al., arXiv:1605.01713",
)
@dataclass(frozen=True)
class InputXGradient:
    """(x - baseline) d f / d x; adds up to f(x) - f(baseline) where the network is linear between them."""

    baseline: str | Tensor = "zero"

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        base = baseline_of(x, self.baseline)
        with undisturbed(net):
            _, slope = gradient(net, x, target)
        terms = slope * (x - base)
        return Map(values=terms.sum(1), channels=terms, passes=len(x), backward=len(x))
