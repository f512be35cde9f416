"""SmoothGrad: the mean gradient around the input, under noise (Smilkov et al., arXiv:1706.03825).

Differs: noise comes in pairs of opposite sign, which cancels what is odd in it; signed, channels are added up; and
`times_input` makes evidence of it, as input times gradient is of the gradient.
"""

from dataclasses import dataclass
from math import tau

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._passes import at_once, gradient
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "smooth_grad",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=False,
    linear="weights",
    sound=False,
    unsound="says where the answer is sensitive, which need not be where its evidence lies, unless times the input",
    source="Smilkov et al., arXiv:1706.03825",
)
@dataclass(frozen=True)
class SmoothGrad:
    """The mean of `samples` gradients (an even number) at x plus normal noise.

    `noise` is its deviation as a share of the range of the item's values, of each channel by itself.
    """

    samples: int = 24
    noise: float = 0.15
    times_input: bool = False
    seed: int = 0

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        if self.samples < 2 or self.samples % 2:
            raise UsageError(f"smooth_grad takes an even number of samples, at least 2, not {self.samples}")
        if self.noise < 0:
            raise UsageError(f"noise is a share of the range of values, 0 or more, not {self.noise:g}")
        axes, shape = tuple(range(2, x.dim())), x.shape[1:]
        width = self.noise * (x.amax(axes, keepdim=True) - x.amin(axes, keepdim=True))
        total = torch.zeros_like(x)
        with undisturbed(net):
            most = at_once(net, x)
            for number in range(self.samples // 2):
                moved = width * self._normal(number, shape.numel(), x).view(shape)
                for way in (moved, -moved):
                    total += gradient(net, x + way, target, most)[1] / self.samples
        found = total * x if self.times_input else total
        passes = self.samples * len(x)
        return Map(values=found.sum(1), channels=found, passes=passes, backward=passes)

    def _normal(self, number: int, count: int, x: Tensor) -> Tensor:
        """(count,) the same noise for every item (Box and Muller)."""
        row = torch.tensor([number], device=x.device)
        u = hashing.uniform(self.seed, 0, row, "smooth_grad", 2 * count)[0].double()
        return ((-2 * torch.log1p(-u[:count])).sqrt() * torch.cos(tau * u[count:])).to(x.dtype)
