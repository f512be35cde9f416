"""Is the map the same for an input that nobody could tell from this one?

Alvarez-Melis and Jaakkola, arXiv:1806.08049, ask the same of worst cases; here noise of one part in a hundred of the
range of the item's values, as a sensor has it, and the correlation of ranks of the maps.
"""

import torch
from torch import Tensor, nn

from gridsight.attribution import Explainer, Map
from gridsight.attribution.judge import Check, graded
from gridsight.attribution.judge.randomised import alike
from gridsight.core import seed as hashing

NOISE = 0.01
GREEN, RED = 0.3, 0.7
"""Of 1 minus the correlation. Sound methods stay under 0.5 on planted evidence, where gradients change most."""


def stability(
    net: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, found: Map, seed: int = 0
) -> list[Check]:
    """One check an item."""
    axes = tuple(range(1, x.dim()))
    width = NOISE * (x.amax(axes, keepdim=True) - x.amin(axes, keepdim=True))
    row = torch.zeros(1, dtype=torch.int64, device=x.device)
    u = hashing.uniform(seed, 0, row, "stability", x[0].numel()).view(1, *x.shape[1:])
    other = explainer(net, x + width * (12**0.5 * (u - 0.5)).to(x.dtype), target)
    return [_check(1 - float(value)) for value in alike(found.values, other.values)]


def _check(value: float) -> Check:
    colour = graded(value, GREEN, RED)
    told = {
        "green": "it stays the same under noise too small to see",
        "amber": "it changes under noise too small to see",
        "red": "it is another map under noise too small to see",
    }
    return Check("stability", value, colour, f"{told[colour]} (changed by {value:.2f})")
