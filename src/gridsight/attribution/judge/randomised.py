"""Does the map depend on what the network has learned? With shuffled weights a map should change.

Adebayo et al., "Sanity checks for saliency maps" (arXiv:1810.03292). The weights of every layer are dealt out anew
among themselves, which keeps their sizes and forgets what they mean. Alike is the correlation of ranks, the mean over
`SHUFFLES` networks. Differs: ranks are signed. Those of sizes are alike for every method that multiplies by the input
(0.8 for integrated gradients on planted evidence), because the input stays; what the network makes of it does not.
"""

import copy

import torch
from torch import Tensor, nn

from gridsight.attribution import Explainer, Map
from gridsight.attribution.judge import Check, graded
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError

SHUFFLES = 3
GREEN, RED = 0.75, 0.95
"""Maps that are nowhere below 0 stay alike to 0.93 on planted evidence, for they show where a layer is active at all,
and an input's contrast stays; methods with signs to 0.4. A map that the network has no part in is alike to 1.
"""


def randomised(
    net: nn.Module, x: Tensor, target: Tensor, explainer: Explainer, found: Map, seed: int = 0
) -> list[Check]:
    """One check an item."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for number in range(SHUFFLES):
        try:
            other = explainer(shuffled(net, hashing.key(seed, "shuffle", number)), x, target)
        except UsageError as error:
            none = Check("randomised", None, "amber", f"shuffled weights could not be explained: {error}")
            return [none] * len(x)
        total += alike(found.values, other.values) / SHUFFLES
    return [_check(float(value)) for value in total]


@torch.no_grad()
def shuffled(net: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights of two and more axes are dealt out anew within each parameter."""
    twin = copy.deepcopy(net)
    for number, weight in enumerate(twin.parameters()):
        if weight.dim() > 1:
            order = torch.from_numpy(hashing.permutation(seed, number, weight.numel())).to(weight.device)
            weight.copy_(weight.flatten()[order].view(weight.shape))
    return twin


def alike(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of ranks of maps (N, *spatial), float64 (N,); 0 where one of them is flat."""
    first, second = (_ranks(each.flatten(1).double()) for each in (a, b))
    first, second = (each - each.mean(1, keepdim=True) for each in (first, second))
    power = (first.square().sum(1) * second.square().sum(1)).sqrt()
    return torch.where(power > 0, (first * second).sum(1) / power.clamp(min=1e-12), torch.zeros_like(power)).cpu()


def _ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis, equal values sharing their mean rank."""
    rows = []
    for row in values:
        _, group, count = row.unique(return_inverse=True, return_counts=True)
        last = count.cumsum(0).double()
        rows.append((last - (count - 1) / 2)[group])
    return torch.stack(rows)


def _check(value: float) -> Check:
    colour = graded(value, GREEN, RED)
    told = {
        "green": "it changes when the network's weights are shuffled",
        "amber": "it changes little when the network's weights are shuffled",
        "red": "it is nearly the same when the network's weights are shuffled, so it shows the input, not the network",
    }
    return Check("randomised", value, colour, f"{told[colour]} (alike {value:.2f})")
