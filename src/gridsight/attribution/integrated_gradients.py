"""Integrated gradients: the mean gradient on the line from a baseline to the input, times their difference.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks" (arXiv:1703.01365). The evidence of all cells adds
up to f(x) - f(baseline). Differs: Gauss-Legendre nodes instead of a Riemann sum, and as many of them as it takes: each
item's are doubled until its sum is right to `tolerance`, or `most` are reached, which the notes then say.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, gradient, scores
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "integrated_gradients",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=True,
    linear="terms",
    sound=True,
    source="Sundararajan et al., arXiv:1703.01365",
)
@dataclass(frozen=True)
class IntegratedGradients:
    """(x - baseline) times the mean gradient between them; `steps` nodes at first, `most` at last."""

    baseline: str | Tensor = "zero"
    steps: int = 16
    most: int = 256
    tolerance: float = 1e-3

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        if not 1 <= self.steps <= self.most:
            raise UsageError(f"integrated gradients take 1 to {self.most} steps, not {self.steps}")
        base = baseline_of(x, self.baseline)
        with undisturbed(net):
            most = at_once(net, x)
            gap = scores(net, x, target, most) - scores(net, base, target, most)
            terms, steps, passes = torch.zeros_like(x), self.steps, 2 * len(x)
            left = torch.arange(len(x), device=x.device)
            while True:
                terms[left] = (x - base)[left] * _mean_gradient(net, x[left], base[left], target[left], steps, most)
                passes += steps * len(left)
                off = (terms.double().flatten(1).sum(1) - gap).abs() > self.tolerance * gap.abs()
                left = left[off[left]]
                if not len(left) or 2 * steps > self.most:
                    break
                steps *= 2
        notes = [f"{len(left)} of {len(x)} items do not add up to {self.tolerance:g} with {steps} steps"]
        return Map(
            values=terms.sum(1),
            channels=terms,
            parts=terms.double().flatten(1),
            gap=gap,
            passes=passes,
            backward=passes - 2 * len(x),
            notes=tuple(notes if len(left) else []),
        )


def _mean_gradient(net: nn.Module, x: Tensor, base: Tensor, target: Tensor, steps: int, most: int) -> Tensor:
    """(N, C, *spatial): nodes of all items in turn, `most` at a time."""
    places, shares = (torch.from_numpy(v).to(x) for v in np.polynomial.legendre.leggauss(steps))
    total, shape = torch.zeros_like(x), (-1, *[1] * (x.dim() - 1))
    for rows in torch.arange(steps * len(x), device=x.device).split(most):
        item, node = rows // steps, rows % steps
        along = torch.lerp(base[item], x[item], ((places[node] + 1) / 2).view(shape))
        slopes = gradient(net, along, target[item], most)[1] * (shares[node] / 2).view(shape)
        total.index_add_(0, item, slopes)
    return total
