"""Shapley values of regions: the one division of f(x) - f(baseline) among them that is efficient, symmetric and gives
nothing to those that never matter (Shapley 1953; of predictions: Lundberg and Lee, arXiv:1705.07874).

`v(S)` is the answer when only the regions S show the item and all others the baseline.

- "exact": all 2^P sets, for up to 14 regions.
- "permutation": regions are added in random orders, each order also backwards (Mitchell et al., arXiv:2104.12199,
  section 4.1); every pair of orders adds up to the whole, and their spread gives the intervals.
- "kernel": least squares over random sets and their complements, each size as often as Shapley's kernel weighs it,
  under the constraint that all adds up (Covert and Lee, arXiv:2012.01536, section 3); intervals by a jackknife.

Both stop when the largest interval is within `tolerance`, or `samples` passes are spent. Sums are in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, masked_scores
from gridsight.attribution._regions import regions_of, spread
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError, nearest
from gridsight.nn.undisturbed import undisturbed

ESTIMATORS = ("auto", "exact", "permutation", "kernel")
MOST_EXACT = 14
GROUPS = 20
"""Of the jackknife."""

Value = Callable[[Tensor], Tensor]
"""v of sets (M, P) bool -> (M,) float64."""


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
    """Evidence of about `count` regions. `samples`: passes an item at most; "auto" is exact where these suffice.

    `tolerance` is half an interval over the sum of all parts' sizes.
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
            raise UsageError(f"there is no estimator {self.estimator!r}; {nearest(self.estimator, ESTIMATORS)}")
        regions, base = regions_of(x, self.regions, self.count), baseline_of(x, self.baseline)
        most_regions = int(regions.max()) + 1
        parts = torch.zeros(len(x), most_regions, dtype=torch.float64, device=x.device)
        error, gap, passes, notes = torch.zeros_like(parts), parts.new_zeros(len(x)), 0, []
        with undisturbed(net):
            most = at_once(net, x)
            for i in range(len(x)):
                count, asked = int(regions[i].max()) + 1, [0]

                def value(sets: Tensor, i: int = i, asked: list[int] = asked) -> Tensor:
                    asked[0] += len(sets)

                    def keep(rows: slice) -> Tensor:
                        return sets[rows][:, regions[i]]

                    return masked_scores(net, x[i], base[i], len(sets), keep, target[i], most)

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
        how = self.estimator
        if how == "auto":
            how = "exact" if count <= MOST_EXACT and 2**count <= self.samples else "permutation"
        if how == "exact":
            if count > MOST_EXACT:
                raise UsageError(f"{count} regions are 2^{count} sets: exact values are for up to {MOST_EXACT} regions")
            return _exact(value, count, device)
        ends = value(torch.tensor([[False] * count, [True] * count], device=device))
        if count == 1:
            gap = ends[1] - ends[0]
            return gap[None], torch.zeros_like(gap[None]), gap
        if how == "permutation":
            return self._by_orders(value, count, ends)
        return self._by_sets(value, count, ends)

    def _drawn(self, first: int, last: int, count: int, device: torch.device) -> Tensor:
        """Random orders of the regions, those numbered `first` to `last`: (last - first, P) int64."""
        numbers = torch.arange(first, last, device=device)
        return hashing.uniform(self.seed, 0, numbers, "shapley", count).argsort(1)

    def _by_orders(self, value: Value, count: int, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs, cost, found = 0, 2 * (count - 1), []
        most = max(2, self.samples // cost)
        while pairs < most:
            new = min(max(2, pairs), most - pairs)  # twice as many each time
            orders = self._drawn(pairs, pairs + new, count, ends.device)
            orders = torch.stack([orders, orders.flip(1)], 1).flatten(0, 1)  # (2 new, P)
            place = orders.argsort(1)  # of each region in its order
            steps = torch.arange(1, count, device=ends.device)
            sets = place[:, None, :] < steps[:, None]  # the first 1, ..., P - 1 of each order
            said = value(sets.flatten(0, 1)).view(-1, count - 1)
            path = torch.cat([ends[0].expand(len(said), 1), said, ends[1].expand(len(said), 1)], 1)
            found.append(path.diff(dim=1).gather(1, place).view(new, 2, count).mean(1))
            pairs += new
            each = torch.cat(found)
            half = each.std(0) / pairs**0.5 * _quantile(pairs - 1)
            if float(half.max()) <= self.tolerance * float(each.mean(0).abs().sum()):
                break
        return each.mean(0), half, ends[1] - ends[0]

    def _by_sets(self, value: Value, count: int, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gap, pairs, sets, said = ends[1] - ends[0], 0, [], []
        most = max(GROUPS, (self.samples - 2) // 2)
        while pairs < most:
            new = min(max(4 * count, GROUPS, pairs), most - pairs)
            place = self._drawn(pairs, pairs + new, count, ends.device).argsort(1)
            size = self._sizes(pairs, pairs + new, count, ends.device)
            drawn = place < size[:, None]
            sets.append(torch.stack([drawn, ~drawn], 1))
            said.append(value(sets[-1].flatten(0, 1)).view(new, 2) - ends[0])
            pairs += new
            z, v = torch.cat(sets).double(), torch.cat(said)
            squares, products = z.mT @ z, (z * v[..., None]).sum(1)  # of each pair: (pairs, P, P), (pairs, P)
            whole = _least_squares(squares.sum(0), products.sum(0), gap)
            group = torch.arange(pairs, device=ends.device) % GROUPS
            without = [
                _least_squares(squares[group != g].sum(0), products[group != g].sum(0), gap) for g in range(GROUPS)
            ]
            spread_of = torch.stack(without) - torch.stack(without).mean(0)
            half = (spread_of.square().sum(0) * (GROUPS - 1) / GROUPS).sqrt() * _quantile(GROUPS - 1)
            if float(half.max()) <= self.tolerance * float(whole.abs().sum()):
                break
        return whole, half, gap

    def _sizes(self, first: int, last: int, count: int, device: torch.device) -> Tensor:
        """Sizes of random sets, from 1 to P - 1, as often as Shapley's kernel weighs all sets of a size together."""
        sizes = torch.arange(1, count, dtype=torch.float64, device=device)
        share = 1 / (sizes * (count - sizes))
        u = hashing.uniform(self.seed, 0, torch.arange(first, last, device=device), "sizes", 1)[:, 0]
        return 1 + torch.searchsorted((share / share.sum()).cumsum(0), u.double()).clamp(max=count - 2)


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


def _least_squares(squares: Tensor, products: Tensor, gap: Tensor) -> Tensor:
    """The parts that fit best among those that add up to the gap."""
    inverse = torch.linalg.pinv(squares, hermitian=True)
    free, ones = inverse @ products, inverse.sum(1)
    return free - ones * (free.sum() - gap) / ones.sum()


def _quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))
