"""Shapley values of a function of sets of which some values are known, if nothing but smoothness is assumed of it.

With z in {-1, 1}^P saying which regions are shown, any function is a sum of products of some z; the product of t of
them gives each of its regions 2 / t where t is odd, and nothing where t is even. So a set and its complement matter
only by half their difference, and what is fitted to these is

    linear terms, free, + a Gaussian process over the odd orders from 3 on, whose variance falls by `rho` an order

(Rasmussen and Williams, "Gaussian processes for machine learning", sections 2.7 and 5.4). The fit's own Shapley values
are known in closed form, and so is how uncertain they are. KernelSHAP (Lundberg and Lee, arXiv:1705.07874) fits the
linear terms alone and takes all else for noise.
"""

from collections.abc import Sequence
from functools import cache
from math import comb

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

RHOS = (0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4, 0.55, 0.75)
CHOOSE = 512
"""Pairs by which `rho` is chosen, the likeliest of `RHOS`."""
JITTER = 1e-8


def fitted(sets: Tensor, half: Tensor, rho: float | None = None) -> tuple[Tensor, Tensor, float]:
    """(Shapley values (P,), half of their 95 % intervals (P,), the `rho` chosen), float64 on the CPU.

    `sets` (n, P) bool, all different and no two complements, the first one of all regions; `half` (n,) float64 is half
    of what each of them says more than its complement. P is 3 or more; n at least P + 2 and best 2 P. `rho` is what
    fewer sets chose, if they did: then its neighbours alone are compared with it.
    """
    z, half = 2 * sets.cpu().double() - 1, half.cpu()
    apart = ((z.shape[1] - z @ z.mT) / 2).round().int()
    at = None if rho is None else RHOS.index(rho)
    likely = RHOS if at is None else RHOS[max(0, at - 1) : at + 2]
    few = slice(0, CHOOSE)
    fits = _Fits(z[few], apart[few, few], half[few], likely)
    best = int(fits.unlikely().argmin())
    if len(z) > CHOOSE:
        fits = _Fits(z, apart, half, likely[best : best + 1])
    return *fits.shapley(best if len(fits.rhos) > 1 else 0), likely[best]


class _Fits:
    """Fits of z (n, P), which `apart` (n, n) regions tell from another, with some `rho`s, R of them at once.

    K = L L^T (R, n, n) is of the odd orders from 3 on; linear terms by generalised least squares.
    """

    def __init__(self, z: Tensor, apart: Tensor, half: Tensor, rhos: Sequence[float]) -> None:
        n, count = z.shape
        self.rhos, self.free, self.half, self.z = rhos, n - count, half, z
        tables = torch.from_numpy(np.stack([_covariances(count, rho) for rho in rhos]))
        covariance = tables.index_select(1, apart.flatten()).view(-1, n, n)
        covariance.diagonal(dim1=1, dim2=2).add_(JITTER)
        self.root = torch.linalg.cholesky(covariance)
        both = torch.linalg.solve_triangular(self.root, torch.cat([z, half[:, None]], 1), upper=False)
        self.rows, said = both[..., :-1], both[..., -1:]
        self.squares = torch.linalg.cholesky(self.rows.mT @ self.rows)
        self.linear = torch.cholesky_solve(self.rows.mT @ said, self.squares)
        self.rest = said - self.rows @ self.linear
        self.variance = self.rest.square().sum((1, 2)).clamp(min=1e-300) / self.free

    def unlikely(self) -> Tensor:
        """Minus twice the logarithm of the restricted likelihood, up to a constant, (R,)."""
        spread = [root.diagonal(dim1=1, dim2=2).log().sum(1) for root in (self.root, self.squares)]
        return self.free * self.variance.log() + 2 * (spread[0] + spread[1])

    def shapley(self, at: int) -> tuple[Tensor, Tensor]:
        """What `fitted` says, of one of the fits."""
        count, in_it = self.z.shape[1], self.z > 0
        with_it, without, own = _shapley_covariances(count, self.rhos[at])
        each = torch.from_numpy(np.stack([without, with_it]))[in_it.long(), in_it.sum(1, keepdim=True)]
        known = torch.linalg.solve_triangular(self.root[at], each, upper=False)
        parts = (2 * self.linear[at] + known.mT @ self.rest[at])[:, 0]
        # what the values leave open of the higher orders, and of the linear terms
        left = 2 * torch.eye(count, dtype=torch.float64) - self.rows[at].mT @ known
        through = torch.linalg.solve_triangular(self.squares[at], left, upper=False)
        open_ = (own - known.square().sum(0)).clamp(min=0) + through.square().sum(0)
        off = 2 * self.half[0] - parts.sum()  # rounding: all regions are the first set
        return parts + off / count, (self.variance[at] * open_).sqrt() * float(stdtrit(self.free, 0.975))


# All tables are of the kernel prod(1 + rho z z') without its even and linear terms, over its value at z = z', which is
# (1 + rho)^count times `_norm`; so only numbers up to 1 are raised to powers.


def _norm(count: int, rho: float) -> float:
    return float((1 - ((1 - rho) / (1 + rho)) ** count) / 2 - rho * count / (1 + rho) ** count)


@cache
def _covariances(count: int, rho: float) -> np.ndarray:
    """Of two sets that 0, 1, ..., `count` regions tell apart."""
    apart, ratio = np.arange(count + 1), (1 - rho) / (1 + rho)
    odd = (ratio**apart - ratio ** (count - apart)) / 2
    return (odd - rho * (count - 2 * apart) / (1 + rho) ** count) / _norm(count, rho)


@cache
def _shapley_covariances(count: int, rho: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Of a region's Shapley value and sets of 0, 1, ..., `count` regions, among them the region or not (both have a
    nonsense entry, which no set asks for); and the variance of the value.

    1 / t is the integral of u^(t - 1) from 0 to 1, so all orders together are the integral of one product.
    """
    nodes, shares = np.polynomial.legendre.leggauss(count // 2 + 2)
    u, shares = (nodes[:, None] + 1) / 2, shares / 2
    high, low = (1 + u * rho) / (1 + rho), (1 - u * rho) / (1 + rho)
    others = np.arange(count)  # of the set, the region itself apart
    even = (high**others * low ** (count - 1 - others) + low**others * high ** (count - 1 - others)) / 2
    table = 2 * rho / (1 + rho) * (shares @ (even - (1 + rho) ** (1.0 - count))) / _norm(count, rho)
    own = sum(comb(count - 1, t - 1) * (2 / t) ** 2 * rho**t / (1 + rho) ** count for t in range(3, count + 1, 2))
    return np.append(0.0, table), np.append(-table, 0.0), own / _norm(count, rho)
