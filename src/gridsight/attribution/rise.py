"""RISE: random soft masks over the input; cells whose showing goes with a high answer are evidence (Petsiuk, Das and
Saenko, arXiv:1806.07421, section 3.2).

Differs: half of the cells are shown, and every mask has its opposite, so that the answer's own level cancels and
evidence is signed: (f(M) - f(1 - M)) (2 M - 1), averaged, over the mean of (2 M - 1)^2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gridsight.attribution import EXPLAINERS, Map
from gridsight.attribution._baseline import baseline_of
from gridsight.attribution._passes import at_once, masked_scores
from gridsight.core import seed as hashing
from gridsight.core.errors import UsageError
from gridsight.nn.resample import resize
from gridsight.nn.undisturbed import undisturbed


@EXPLAINERS.register(
    "rise",
    ndims=(1, 2, 3),
    needs="passes",
    complete=False,
    linear="",
    nonlinear="its masks are soft, so that neighbours share their evidence, and random",
    sound=True,
    source="Petsiuk et al., arXiv:1806.07421",
    contract={"samples": 256},
)
@dataclass(frozen=True)
class RISE:
    """`samples` masks (an even number) of `cells` random cells an axis."""

    samples: int = 1000
    cells: int = 7
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __call__(self, net: nn.Module, x: Tensor, target: Tensor) -> Map:
        if self.samples < 2 or self.samples % 2:
            raise UsageError(f"rise takes an even number of samples, at least 2, not {self.samples}")
        if self.cells < 2:
            raise UsageError(f"rise takes masks of 2 or more cells an axis, not {self.cells}")
        spatial, base = tuple(x.shape[2:]), baseline_of(x, self.baseline)
        maps = torch.zeros(len(x), *spatial, dtype=torch.float64, device=x.device)
        power = torch.zeros(spatial, dtype=torch.float64, device=x.device)
        with undisturbed(net):
            most = max(2, at_once(net, x) // 2 * 2)
            for first in range(0, self.samples, most):
                masks = self._masks(first // 2, min(first + most, self.samples) // 2, spatial, x)
                both, sign = torch.stack([masks, 1 - masks], 1).flatten(0, 1), (2 * masks - 1).double()
                power += sign.square().sum(0)
                for i in range(len(x)):
                    said = masked_scores(net, x[i], base[i], len(both), both.__getitem__, target[i], most)
                    maps[i] += torch.tensordot(said[0::2] - said[1::2], sign, 1)
        return Map(values=(maps / power.clamp(min=1e-12)).to(x.dtype), passes=self.samples * len(x))

    def _masks(self, first: int, last: int, spatial: tuple[int, ...], x: Tensor) -> Tensor:
        """Masks `first` to `last`, (last - first, *spatial) from 0 to 1: random cells, enlarged and moved."""
        numbers, ndim = torch.arange(first, last, device=x.device), len(spatial)
        each = [min(self.cells, size) for size in spatial]
        side = [-(-size // n) for size, n in zip(spatial, each, strict=True)]
        few = torch.Size([n + 1 for n in each])
        u = hashing.uniform(self.seed, 0, numbers, "rise", few.numel() + ndim)
        coarse = (u[:, : few.numel()] < 0.5).to(x.dtype).view(-1, 1, *few)
        fine = resize(coarse, [n * s for n, s in zip(few, side, strict=True)])[:, 0]
        offsets = (u[:, few.numel() :] * torch.tensor(side, device=x.device)).long().tolist()
        boxes = [tuple(slice(o, o + n) for o, n in zip(row, spatial, strict=True)) for row in offsets]
        return torch.stack([own[box] for own, box in zip(fine, boxes, strict=True)])
