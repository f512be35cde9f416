"""LIME: a linear model of the answer over random sets of regions, those near the whole item counting most.

Ribeiro, Singh and Guestrin, arXiv:1602.04938, section 3. Differs: no penalty unless `ridge` is given, so that a linear
network is told exactly; the distance of a set is the cosine one that its authors' program uses for pictures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, set_scores
from gridsight.attribution._regions import regions_of, spread
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "lime",
    ndims=(1, 2, 3),
    needs="passes",
    complete=False,
    linear="regions",
    sound=True,
    source="Ribeiro et al., arXiv:1602.04938",
)
@dataclass(frozen=True)
class LIME:
    """Coefficients of about `count` regions from `samples` sets; `width` of the kernel over the distance."""

    regions: str | Tensor = "grid"
    count: int = 16
    samples: int = 512
    width: float = 0.25
    ridge: float = 0.0
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        regions, base = regions_of(x, self.regions, min(self.count, x[0, 0].numel())), baseline_of(x, self.baseline)
        count = int(regions.max()) + 1
        if self.samples < 2 * count:
            raise UsageError(f"{self.samples} samples are too few for {count} regions: at least {2 * count}")
        if self.width <= 0 or self.ridge < 0:
            raise UsageError(f"lime takes a width above 0 and a ridge from 0 on, not {self.width} and {self.ridge}")
        parts = torch.zeros(len(x), count, dtype=torch.float64, device=x.device)
        with undisturbed(net):
            most = at_once(net, x)
            for i in range(len(x)):
                own = int(regions[i].max()) + 1
                numbers = torch.arange(self.samples, device=x.device)
                sets = hashing.uniform(self.seed, 0, numbers, "lime", own) < 0.5
                sets[0] = True
                said = set_scores(net, x[i], base[i], regions[i], sets, target[i], most)
                parts[i, :own] = self._fit(sets.double(), said)
        return Map(values=spread(parts, regions).to(x.dtype), regions=regions, passes=self.samples * len(x))

    def _fit(self, sets: Tensor, said: Tensor) -> Tensor:
        """Coefficients (P,) of the sets (M, P), weighed by how near they are to all regions."""
        near = (sets.sum(1) / sets.shape[1]).sqrt()  # the cosine of a set and the whole
        weight = torch.exp(-((1 - near) ** 2) / self.width**2)
        rows = torch.cat([sets, torch.ones_like(sets[:, :1])], 1)
        weighed = rows * weight[:, None]
        penalty = torch.diag(torch.full_like(rows[0], self.ridge))
        penalty[-1, -1] = 0
        return torch.linalg.lstsq(weighed.mT @ rows + penalty, weighed.mT @ said).solution[:-1]
