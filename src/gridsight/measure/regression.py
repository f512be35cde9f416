"""Metrics of numbers: mean absolute error, root mean squared error and R squared, and intervals that keep their word.

R squared is 1 - sum (y - said)^2 / sum (y - mean y)^2 over the items measured (scikit-learn's `r2_score`): 1 is exact,
0 no better than always saying their mean. Intervals are percentiles of a bootstrap over groups, or items.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridsight.measure.intervals import Floats, bootstrap, effective_count, group_numbers, percentile, wilson
from gridsight.measure.metrics import Metric

RESAMPLES = 1000


def conformal_margin(errors: NDArray[Any], coverage: float) -> float | None:
    """The half-width that holds a share `coverage` of new items: the ceil((n + 1) coverage)-th smallest error.

    None where n is too small for that (n < coverage / (1 - coverage)): no finite width would keep the promise.
    Source: split conformal prediction, Lei et al., JASA 113, 2018, algorithm 2.
    """
    n = len(errors)
    rank = int(np.ceil((n + 1) * coverage - 1e-9))
    return float(np.sort(errors)[rank - 1]) if 0 < rank <= n else None


def summary(
    value: NDArray[Any],
    low: NDArray[Any],
    high: NDArray[Any],
    y: NDArray[Any],
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> dict[str, Metric]:
    """`mae`, `rmse`, `r2` of `value` (n,) against y (n,), and `interval_coverage`: how many lie in [low, high]."""
    units = group_numbers(None if groups is None else np.asarray(groups), len(y))
    error = np.asarray(value, np.float64) - y
    # centred: R squared is a difference of squares, which would cancel for numbers far from 0
    centred = np.asarray(y, np.float64) - np.mean(y)

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(0)
        squares = error**2 @ weights
        spread = centred**2 @ weights - (centred @ weights) ** 2 / total
        # what rounding leaves of equal numbers is no spread
        spreads = spread > 1e-12 * (centred**2 @ weights)
        r2 = 1 - np.divide(squares, spread, out=np.full_like(squares, np.nan), where=spreads)
        return np.stack([np.abs(error) @ weights / total, np.sqrt(squares / total), r2], 1)

    values = statistic(np.ones((len(y), 1)))[0]
    below, above = percentile(bootstrap(statistic, units, RESAMPLES, seed))
    found = {
        name: {"value": float(v), "low": float(a), "high": float(b)}
        for name, v, a, b in zip(("mae", "rmse", "r2"), values, below, above, strict=True)
    }
    if np.isfinite(low).all():
        inside = (y >= low) & (y <= high)
        n = float(len(y)) if groups is None else effective_count(inside, units)
        bounds = wilson(inside.mean() * n, n)
        found["interval_coverage"] = {
            "value": float(inside.mean()),
            "low": float(bounds[0]),
            "high": float(bounds[1]),
        }
    return found
