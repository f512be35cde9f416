"""Confidence intervals: Wilson's for shares, the bootstrap for everything else, over groups where items come in groups.

Items of one patient, speaker or camera are alike: treating them as independent makes an interval too narrow. A share
over groups therefore takes Wilson's formula with the effective number of items (the design effect of survey sampling:
Kish 1965; Korn and Graubard, Survey Methodology 24, 1998), and the bootstrap draws whole groups.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_CELLS = 1_000_000  # weights held at once by the bootstrap: 8 MB


def wilson(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """(low, high) of a share successes / n, each float64 of the common shape; both NaN where n is 0.

    Wilson's score interval (JASA 22, 1927), without continuity correction: it never leaves [0, 1] and never has width
    0. Brown, Cai and DasGupta (Stat. Sci. 16, 2001) recommend it. n and successes need not be whole numbers.
    """
    k, m = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    if np.any(k < 0) or np.any(k > m):
        raise ValueError("a share needs 0 <= successes <= n")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = k / m
        middle = (share + z * z / (2 * m)) / (1 + z * z / m)
        half = z / (1 + z * z / m) * np.sqrt(share * (1 - share) / m + z * z / (4 * m * m))
    # at 0 and n the formula's own bound is exact; rounding would leave it 1e-17 away
    low, high = np.where(k == 0, 0.0, middle - half), np.where(k == m, 1.0, middle + half)
    nothing = m == 0
    return np.where(nothing, np.nan, low)[()], np.where(nothing, np.nan, high)[()]


def effective_count(hits: NDArray[np.bool_], groups: NDArray[Any]) -> float:
    """How many independent items (n,) hits in `groups` are worth: n over the design effect, at most n.

    The effect is the variance of the share between groups (linearised, as for a ratio of two sums) over p (1 - p) / n.
    With no miss or no hit at all nothing shows how alike the items of a group are: then it is the number of groups.
    """
    n, share = len(hits), float(np.mean(hits))
    unit = group_numbers(groups)
    count = int(unit.max()) + 1
    if share in (0.0, 1.0) or count < 2:
        return float(count)
    residual = np.bincount(unit, hits - share)
    variance = count / (count - 1) * float(residual @ residual) / n**2
    effect = variance / (share * (1 - share) / n)
    return n / max(1.0, effect)


def group_numbers(groups: NDArray[Any] | None, n: int = 0) -> NDArray[np.int64]:
    """(n,) int64: which group an item is in, from 0 without gaps; without groups every item is its own."""
    if groups is None:
        return np.arange(n)
    return np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1).astype(np.int64)


def bootstrap(
    statistic: Callable[[Floats], Floats],
    units: NDArray[np.int64],
    resamples: int = 1000,
    seed: int = 0,
) -> Floats:
    """`statistic` of `resamples` resamples: (resamples, ...).

    `statistic` takes weights (n, b), how often each of the n items was drawn in each of b resamples, and returns
    (b, ...). `units` (n,) from `group_numbers` says which items are drawn together (Efron 1979; drawing whole groups:
    Davison and Hinkley 1997, section 3.8). The draws depend on `seed`, the number of units and the resample alone. One
    unit says nothing of others: a single resample, all NaN.
    """
    count = int(units.max()) + 1
    if count < 2:
        return np.full_like(statistic(np.ones((len(units), 1))), np.nan)
    each_alone = count == len(units)
    step = max(1, _CELLS // len(units))
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(0, count, (size, count), dtype=np.int64) * size
        drawn += np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(count, size).astype(np.float64)
        parts.append(statistic(weights if each_alone else weights[units]))
    return np.concatenate(parts)


def percentile(values: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """(low, high) percentiles of (resamples, ...) along the first axis; resamples where it is undefined (NaN) do not
    count, and where it always is, so are the bounds."""
    outside = 50 * (1 - confidence)
    defined = np.isfinite(values)
    bounds = np.full((2, *values.shape[1:]), np.nan)
    for place in np.ndindex(values.shape[1:]):
        column = values[(slice(None), *place)][defined[(slice(None), *place)]]
        if len(column):
            bounds[(slice(None), *place)] = np.percentile(column, [outside, 100 - outside])
    return bounds[0], bounds[1]
