"""Shapley values of regions: the one division of f(x) - f(baseline) among them that is efficient, symmetric and gives
nothing to those that never matter (Shapley 1953; of predictions: Lundberg and Lee, arXiv:1705.07874).

`v(S)` is the answer when only the regions S show the item and all others the baseline.

- "exact": all 2^P sets, for up to 14 regions.
- "permutation": regions are added in random orders, each order also backwards (Mitchell et al., arXiv:2104.12199,
  section 4.1); every pair of orders adds up to the whole, and their spread gives the intervals. Without bias.
- "kernel": random sets and their complements, no set twice and every size as often (Musco and Witter,
  arXiv:2410.01917), through which a smooth function is laid whose own values are exact; so are its intervals
  (`_smooth`). Differs from KernelSHAP by the higher orders of that function: on trained networks of digits and series
  16 regions have with 1,024 passes a quarter to an eighth of the error of random orders.

Both stop when the largest interval is within `tolerance`, or `samples` passes are spent. Sums are in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, set_scores
from gridsight.attribution._regions import regions_of, spread
from gridsight.attribution._smooth import fitted
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError, nearest
from gridsight.nn.undisturbed import undisturbed

ESTIMATORS = ("auto", "exact", "permutation", "kernel")
MOST_EXACT = 14
MOST_FITTED = 256
"""Regions up to which the kernel estimator's fit has enough pairs to be chosen by."""
MOST_PAIRS = 4096
"""Of sets through which a function is laid: beyond them that takes longer than networks do."""

Value = Callable[[Tensor], Tensor]
"""v of sets (M, P) bool -> (M,) float64."""
GOLDEN = (5**0.5 - 1) / 2


@EXPLAINERS.register(
    "shapley",
    ndims=(1, 2, 3),
    needs="passes",
    complete=True,
    linear="regions",
    sound=True,
    source="Shapley 1953; Lundberg and Lee, arXiv:1705.07874",
)
@dataclass(frozen=True)
class Shapley:
    """Evidence of about `count` regions. `samples`: passes an item at most; "auto" is exact where these suffice, else
    "kernel".

    `tolerance` is half an interval over the sum of all parts' sizes. By default the values of trained networks of
    digits, all together, are 3 to 4 % of their size off after 370 (8x8 cells) and 585 passes (28x28).
    """

    regions: str | Tensor = "grid"
    count: int = 16
    baseline: str | Tensor = "zero"
    estimator: str = "auto"
    samples: int = 1024
    tolerance: float = 0.01
    seed: int = 0

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        if self.estimator not in ESTIMATORS:
            raise UsageError(f"there is no estimator {self.estimator!r}; {nearest(str(self.estimator), ESTIMATORS)}")
        if self.tolerance < 0:
            raise UsageError(f"a tolerance is a share from 0 on, not {self.tolerance}")
        regions, base = regions_of(x, self.regions, min(self.count, x[0, 0].numel())), baseline_of(x, self.baseline)
        most_regions = int(regions.max()) + 1
        parts = torch.zeros(len(x), most_regions, dtype=torch.float64, device=x.device)
        error, gap, passes, notes = torch.zeros_like(parts), parts.new_zeros(len(x)), 0, []
        with undisturbed(net):
            most = at_once(net, x)
            for i in range(len(x)):
                count, asked = int(regions[i].max()) + 1, [0]

                def value(sets: Tensor, i: int = i, asked: list[int] = asked) -> Tensor:
                    asked[0] += len(sets)
                    return set_scores(net, x[i], base[i], regions[i], sets, target[i], most)

                found, half, total = self._of_one(value, count, x.device)
                parts[i, :count], error[i, :count], gap[i] = found, half, total
                passes += asked[0]
                if (wide := float(half.max() / found.abs().sum().clamp(min=1e-12))) > self.tolerance:
                    notes.append(f"item {i}: intervals of up to {wide:.1%} after {asked[0]:,} passes")
        exact = not bool(error.any())
        return Map(
            values=spread(parts, regions).to(x.dtype),
            regions=regions,
            parts=parts,
            gap=gap,
            error=None if exact else error,
            passes=passes,
            notes=tuple(notes),
        )

    def _of_one(self, value: Value, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(parts (P,), half their intervals (P,), f(x) - f(baseline)) of one item of `count` regions."""
        how, least = self.estimator, {"permutation": 4 * count - 2, "kernel": 4 * count + 2}
        if count < 4 or (how == "auto" and count <= MOST_EXACT and 2**count <= self.samples):
            how = "exact"  # of 3 regions there are no more sets than an estimate would take
        elif how == "auto":
            how = "kernel" if count <= MOST_FITTED else "permutation"
        if how == "kernel" and count > MOST_FITTED:
            raise UsageError(f"{count} regions: kernel is for up to {MOST_FITTED}; take permutation, or fewer")
        if how == "exact":
            if count > MOST_EXACT:
                raise UsageError(f"{count} regions are 2^{count} sets: exact values are for up to {MOST_EXACT} regions")
            return _exact(value, count, device)
        if self.samples < least[how]:
            raise UsageError(f"{self.samples} samples are too few for {count} regions: at least {least[how]:,}")
        ends = value(torch.tensor([[False] * count, [True] * count], device=device))
        return (self._by_orders if how == "permutation" else self._by_sets)(value, count, ends)

    def _orders(self, first: int, last: int, count: int, device: torch.device) -> Tensor:
        """Random orders of the regions, those numbered `first` to `last`: (last - first, P) int64."""
        numbers = torch.arange(first, last, device=device)
        return hashing.uniform(self.seed, 0, numbers, "shapley", count).argsort(1)

    def _by_orders(self, value: Value, count: int, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs, most, found = 0, (self.samples - 2) // (2 * (count - 1)), []
        while pairs < most:
            new = min(max(2, pairs), most - pairs)  # twice as many each time
            orders = self._orders(pairs, pairs + new, count, ends.device)
            orders = torch.stack([orders, orders.flip(1)], 1).flatten(0, 1)  # (2 new, P)
            place = orders.argsort(1)  # of each region in its order
            steps = torch.arange(1, count, device=ends.device)
            sets = place[:, None, :] < steps[:, None]  # the first 1, ..., P - 1 of each order
            said = value(sets.flatten(0, 1)).view(-1, count - 1)
            path = torch.cat([ends[0].expand(len(said), 1), said, ends[1].expand(len(said), 1)], 1)
            found.append(path.diff(dim=1).gather(1, place).view(new, 2, count).mean(1))
            pairs += new
            each = torch.cat(found)
            half = each.std(0) / pairs**0.5 * float(stdtrit(pairs - 1, 0.975))
            if self._enough(each.mean(0), half):
                break
        return each.mean(0), half, ends[1] - ends[0]

    def _by_sets(self, value: Value, count: int, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sets = self._pairs(min((self.samples - 2) // 2, MOST_PAIRS, 2 ** (count - 1) - 1), count, ends.device)
        pairs, said, rho = 0, [(ends[1] - ends[0])[None] / 2], None
        while pairs < len(sets):
            some = sets[pairs : max(2 * count, 32, 2 * pairs)]
            pairs += len(some)
            both = value(torch.cat([some, ~some])).view(2, -1)
            said.append((both[0] - both[1]) / 2)
            known = torch.cat([torch.ones_like(sets[:1]), sets[:pairs]])
            parts, half, rho = fitted(known, torch.cat(said), rho)
            if self._enough(parts, half):
                break
        return parts, half, ends[1] - ends[0]

    def _enough(self, parts: Tensor, half: Tensor) -> bool:
        return float(half.max()) <= self.tolerance * float(parts.abs().sum())

    def _pairs(self, wanted: int, count: int, device: torch.device) -> Tensor:
        """(wanted, P) bool: random sets without the first region, one of each pair of complements; none twice."""
        drawn = 2 * wanted
        while True:
            place = self._orders(0, drawn, count, device).argsort(1)
            start = hashing.uniform(self.seed, 0, torch.zeros(1, dtype=torch.int64, device=device), "sizes", 1)
            # along the golden ratio every size comes as often as another, however many are drawn
            turn = (start[0].double() + torch.arange(drawn, device=device) * GOLDEN) % 1
            sets = place < 1 + (turn * (count - 1)).long()[:, None]
            sets ^= sets[:, :1].clone()
            packed = np.packbits(sets.cpu().numpy(), axis=1)
            first = np.sort(np.unique(packed, axis=0, return_index=True)[1])[:wanted]
            if len(first) == wanted:
                return sets[torch.from_numpy(first).to(device)]
            drawn *= 2


def _exact(value: Value, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.arange(2**count, device=device)
    sets = (numbers[:, None] >> torch.arange(count - 1, -1, -1, device=device)) & 1 == 1
    v, size = value(sets).view((2,) * count), sets.sum(1).view((2,) * count)
    weights = torch.tensor([1 / (count * comb(count - 1, s)) for s in range(count)], dtype=torch.float64, device=device)
    parts = []
    for i in range(count):
        without, with_it = v.unbind(i)
        parts.append((weights[size.select(i, 0)] * (with_it - without)).sum())
    found = torch.stack(parts)
    return found, torch.zeros_like(found), v.flatten()[-1] - v.flatten()[0]
