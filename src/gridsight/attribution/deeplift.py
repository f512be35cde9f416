"""DeepLift by the rescale rule: how far each cell's difference from a baseline carried the answer's.

Shrikumar, Greenside and Kundaje, arXiv:1704.02685, section 3.5.1. The evidence of all cells adds up to
f(x) - f(baseline). Differs: multipliers belong to function calls, not to modules; products, attention, norms over an
item and recurrent layers have theirs, too (`_rescale`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, in_turn, outputs_of, picked, refuse_unless_differentiable
from gridsight.attribution._rescale import Rescaled
from gridsight.nn.undisturbed import undisturbed

TOLERANCE = 1e-3
"""Of the sum, relative to f(x) - f(baseline): beyond it a note says what is off."""


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
    """(x - baseline) times the multipliers of one backward pass; about twice the price of a gradient."""

    baseline: str | Tensor = "zero"

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        base, kept = baseline_of(x, self.baseline), set[str]()

        def ask(pair: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            asked, rule = pair[:, 0].detach().clone().requires_grad_(), Rescaled()
            with rule:
                value = picked(outputs_of(net, asked), target)
            refuse_unless_differentiable(net, value)
            rule.turn()
            with torch.no_grad(), rule:
                before = picked(outputs_of(net, pair[:, 1].clone()), target)
            rule.done()
            (many,) = torch.autograd.grad(value.sum(), asked)
            kept.update(rule.kept)
            return value.detach().double() - before.double(), many

        with undisturbed(net):
            most = max(1, at_once(net, x) // 2) if len(x) > 1 else 1
            gap, many = in_turn(ask, torch.stack([x, base], 1), target, most)
        terms = many * (x - base)
        parts, notes = terms.double().flatten(1), list[str]()
        off = int(((parts.sum(1) - gap).abs() > TOLERANCE * gap.abs()).sum())
        if off:
            known = (
                f"the slopes of {', '.join(sorted(kept))} do not say all" if kept else "rounding, or what is compiled"
            )
            notes = [f"{off} of {len(x)} items do not add up to {TOLERANCE:g}: {known}"]
        return Map(
            values=terms.sum(1),
            channels=terms,
            parts=parts,
            gap=gap,
            passes=2 * len(x),
            backward=len(x),
            notes=tuple(notes),
        )
