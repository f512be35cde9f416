"""Metrics of ordered grades: Cohen's kappa with quadratic weights, and the mean absolute distance in grades.

kappa = 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij, O the counts of (true, said), E what chance would give with
the same totals (Cohen, Psychological Bulletin 70, 1968). 1: no mistakes, 0: as chance; one distant mistake costs as
much as several near ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridsight.measure.intervals import Floats, bootstrap, group_numbers, percentile, wilson
from gridsight.measure.metrics import Metric

RESAMPLES = 1000


def quadratic_kappa(said: NDArray[Any], y: NDArray[Any], k: int) -> float:
    """Kappa of grades `said` and `y` (n,), each 0 to k - 1; NaN where both are always the same one."""
    return float(_statistics(said, y, k)(np.ones((len(y), 1)))[0, 0])


def summary(p: NDArray[Any], y: NDArray[Any], groups: Sequence[Any] | None = None, seed: int = 0) -> dict[str, Metric]:
    """`quadratic_kappa` and `mae` of probabilities (n, K) against grades (n,), with bootstrap intervals over groups.

    Answers that are all right, which no resample can doubt, may be wrong by one grade as often as Wilson's bound says.
    """
    statistic = _statistics(p.argmax(1), y, p.shape[1])
    units = group_numbers(None if groups is None else np.asarray(groups), len(y))
    (kappa, mae), (low, high) = (
        statistic(np.ones((len(y), 1)))[0],
        percentile(bootstrap(statistic, units, RESAMPLES, seed)),
    )
    if mae == 0:
        count = int(units.max()) + 1
        high[1] = 1 - wilson(count, count)[0]
        # of equal totals chance costs 2 var(y)
        low[0] = max(-1.0, kappa - high[1] / (2 * np.var(y))) if np.var(y) else np.nan
    return {
        name: {"value": float(v), "low": float(a), "high": float(b)}
        for name, v, a, b in zip(("quadratic_kappa", "mae"), (kappa, mae), low, high, strict=True)
    }


def _statistics(said: NDArray[Any], y: NDArray[Any], k: int) -> Any:
    distance = np.abs(said - y).astype(np.float64)
    said_one, true_one = np.eye(k)[said], np.eye(k)[y]
    cost = np.subtract.outer(np.arange(k), np.arange(k)) ** 2.0

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(0)
        seen = distance**2 @ weights
        chance = ((true_one.T @ weights) * (cost @ (said_one.T @ weights))).sum(0) / total
        kappa = 1 - np.divide(seen, chance, out=np.full_like(seen, np.nan), where=chance > 0)
        return np.stack([kappa, distance @ weights / total], 1)

    return statistic
