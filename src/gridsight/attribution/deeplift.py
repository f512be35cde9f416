"""DeepLift by the rescale rule: how far each cell's difference from a baseline carried the answer's.

Shrikumar, Greenside and Kundaje, arXiv:1704.02685, section 3.5.1. The evidence of all cells adds up to
f(x) - f(baseline). Differs: multipliers belong to function calls, not to modules (`_rescale`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked
from gridsight.attribution._rescale import Rescaled
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "deeplift",
    ndims=(1, 2, 3),
    needs="gradient",
    complete=True,
    linear="terms",
    sound=True,
    source="Shrikumar et al., arXiv:1704.02685",
)
@dataclass(frozen=True)
class DeepLift:
    """(x - baseline) times the multipliers of one backward pass; twice the price of a gradient."""

    baseline: str | Tensor = "zero"

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        base = baseline_of(x, self.baseline)

        def ask(pair: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            both = torch.cat([pair[:, 0], pair[:, 1]]).detach().clone().requires_grad_()
            with Rescaled():
                value = picked(outputs_of(net, both), torch.cat([target, target]))
            now, before = value.detach().double().chunk(2)
            (many,) = torch.autograd.grad(value[: len(pair)].sum(), both)
            return now - before, many[: len(pair)]

        with undisturbed(net):
            gap, many = in_turn(ask, torch.stack([x, base], 1), target, max(1, at_once(net, x) // 2))
        terms = many * (x - base)
        return Map(
            values=terms.sum(1),
            channels=terms,
            parts=terms.double().flatten(1),
            gap=gap,
            passes=2 * len(x),
            backward=2 * len(x),
        )
