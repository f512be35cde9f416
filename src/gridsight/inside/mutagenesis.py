"""In-silico mutagenesis: what every substitution at every position of a sequence would change.

Zhou and Troyanskaya, Nature Methods 12, 2015, doi:10.1038/nmeth.3547; Alipanahi et al., Nature Biotechnology 33, 2015,
doi:10.1038/nbt.3300 ("mutation maps"). Differs: `importance`, one number a position, is what the mean substitution
takes away; `spans` turns it into stretches, so that a motif can be found without an eye.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gridsight.core.errors import UsageError
from gridsight.measure.passes import at_once, outputs_of
from gridsight.nn.undisturbed import undisturbed

LEVEL = 0.25
"""A stretch goes on while its positions are above this share of the most important one, small gaps apart."""


@dataclass(frozen=True, eq=False)
class Mutations:
    """`change` (N, letters, length) float32: the target's output with that letter there, minus the output as it is.

    0 where the letter is the sequence's own. `letters` (N, length) int64: the sequence's own, -1 where it is not known.
    `output` (N,), `target` (N,); `passes`: sequences that went through the network.
    """

    change: Tensor
    letters: Tensor
    output: Tensor
    target: Tensor
    passes: int

    @property
    def importance(self) -> Tensor:
        """(N, length): minus the mean change over the other letters, so above 0 where the sequence's own counts."""
        others = self.change.shape[1] - (self.letters >= 0).to(self.change)
        return -self.change.sum(1) / others

    def spans(self, level: float = LEVEL) -> list[list[tuple[int, int]]]:
        """Of each sequence the stretches (first, behind the last) that count, the strongest first."""
        return [_spans(row, level) for row in self.importance.double().cpu().numpy()]


def mutagenesis(net: nn.Module, x: Tensor, target: int | Tensor | None = None) -> Mutations:
    """Every substitution in one-hot sequences x (N, letters, length), for one output each (default: the largest).

    A position of zeros, or of equal shares, is not known ("N"): every letter is tried there.
    """
    letters = _letters(x)
    n, alphabet, length = x.shape
    with undisturbed(net), torch.no_grad():
        most = at_once(net, x)
        outputs = torch.cat([outputs_of(net, part) for part in x.split(most)])
        count = outputs.shape[1]
        own = outputs.argmax(1) if target is None else torch.as_tensor(target, device=x.device).long().expand(n)
        if bool(((own < 0) | (own >= count)).any()):
            raise UsageError(f"target {int(own[(own < 0) | (own >= count)][0])}: outputs are 0 to {count - 1}")
        output = outputs.gather(1, own[:, None])[:, 0]
        change = torch.zeros(n, alphabet, length, dtype=outputs.dtype, device=x.device)
        item, letter, place = (torch.arange(alphabet, device=x.device)[:, None] != letters[:, None]).nonzero(
            as_tuple=True
        )
        for i, a, p in zip(item.split(most), letter.split(most), place.split(most), strict=True):
            mutants, rows = x[i].clone(), torch.arange(len(i), device=x.device)
            mutants[rows, :, p] = 0
            mutants[rows, a, p] = 1
            change[i, a, p] = outputs_of(net, mutants).gather(1, own[i, None])[:, 0] - output[i]
    return Mutations(change.float(), letters, output, own.clone(), n + len(item))


def _letters(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 3 or x.shape[1] < 2 or not len(x):
        said = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise UsageError(f"one-hot sequences are (N, letters, length), floating-point, not {said}")
    known = ((x == 0) | (x == 1)).all(1) & (x.sum(1) == 1)
    equal = (x == x[:, :1]).all(1) & (x[:, 0] >= 0) & (x[:, 0] < 1)
    shared = (x >= 0).all(1) & ((x.sum(1) - 1).abs() < 1e-3)  # an R is half an A and half a G
    if not bool((known | equal | shared).all()):
        item, place = (~(known | equal | shared)).nonzero()[0].tolist()
        raise UsageError(
            f"sequence {item} is not one-hot at position {place}: one letter is 1, or several share it, or none is more"
        )
    return torch.where(known, x.argmax(1), -1)


def _spans(importance: NDArray[np.float64], level: float) -> list[tuple[int, int]]:
    """Stretches with the largest sum of what is above the level (Kadane's algorithm), one after the other."""
    top = importance.max()
    if top <= 0:
        return []
    found: list[tuple[int, int]] = []
    left, strongest = importance / top - level, 0.0
    while True:
        best, first, behind, total, start = 0.0, 0, 0, 0.0, 0
        for i, value in enumerate(left):
            if total <= 0:
                total, start = 0.0, i
            total += value
            if total > best:
                best, first, behind = total, start, i + 1
        if best <= level * strongest:
            return found
        strongest = max(strongest, best)
        found.append((first, behind))
        left[first:behind] = -np.inf
