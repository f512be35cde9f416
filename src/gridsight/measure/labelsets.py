"""Metrics of sets of classes from probabilities (n, K) and targets (n, K) of 0 and 1, under scikit-learn's names.

`accuracy`: the share of items whose whole set is right (subset accuracy); `hamming_loss`: the share of wrong entries;
`f1_macro`: the mean over classes of F1, `f1_micro`: F1 of all entries; `average_precision` and `roc_auc`: the mean over
the classes that some items have and some have not. A class counts as said at a probability of at least one half.

Intervals are Wilson's for accuracy, percentiles of a bootstrap over groups, or items, for the rest. A class whose value
is exactly 0 or 1 is the same in every resample, yet not certain: in a mean over classes the distance to Wilson's bound
of its items is added, as variances are (Zou and Donner, Stat. Med. 27, 2008).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridsight.measure.calibration import expected_calibration_error
from gridsight.measure.intervals import Floats, bootstrap, effective_count, group_numbers, percentile, wilson
from gridsight.measure.metrics import Curves, Metric, defined_mean
from gridsight.measure.metrics import per_class as classes_of

RESAMPLES, CURVE_RESAMPLES = 1000, 400
CURVE_WORK = 10_000_000  # items times classes beyond which areas under curves come without an interval


def measure(
    p: NDArray[Any], y: NDArray[Any], classes: Sequence[str], groups: Sequence[Any] | None = None, seed: int = 0
) -> tuple[dict[str, Metric], list[dict[str, Any]]]:
    """Each metric as {"value", "low", "high"}, and the rows of `per_class` with the average precision of each."""
    p, y = np.asarray(p, np.float64), np.asarray(y) > 0
    units = group_numbers(None if groups is None else np.asarray(groups), len(y))
    right = ((p >= 0.5) == y).all(1)
    effective = float(len(y)) if groups is None else effective_count(right, units)
    low, high = wilson(right.mean() * effective, effective)
    found = {"accuracy": {"value": float(right.mean()), "low": float(low), "high": float(high)}}
    found |= _answers(p >= 0.5, y, units, seed)
    rows = per_class(p, y, classes)
    mixed = np.flatnonzero(y.any(0) & ~y.all(0))
    if not len(mixed):
        return found, rows
    curves = Curves.of_labels(p[:, mixed], y[:, mixed])
    values = curves.each(np.ones((len(y), 1)))[:, 0]  # (K, 2): area under ROC and average precision
    drawn = np.full((1, *values.shape), np.nan)
    if p.size <= CURVE_WORK:
        drawn = bootstrap(lambda weights: curves.each(weights).transpose(1, 0, 2), units, CURVE_RESAMPLES, seed)
    inside, outside = _units(units, y[:, mixed]), _units(units, ~y[:, mixed])
    for i, name, count in ((0, "roc_auc", np.minimum(inside, outside)), (1, "average_precision", inside)):
        below, above = _open(values[:, i], count)
        found[name] = _mean(values[:, i], drawn[:, :, i], below, above)
        if name == "average_precision":
            for place, c in enumerate(mixed):
                one = slice(place, place + 1)
                rows[c][name] = _mean(values[one, i], drawn[:, one, i], below[one], above[one])
    return found, rows


def _answers(said: NDArray[Any], y: NDArray[Any], units: NDArray[Any], seed: int) -> dict[str, Metric]:
    """The metrics of the classes that are said."""
    k, wrong = y.shape[1], (said != y).mean(1)
    hits, either = (said & y).astype(np.float64), said.astype(np.float64) + y

    def statistic(weights: Floats) -> Floats:
        both, all_ = (np.vstack([counts, counts.sum(0)]) for counts in (hits.T @ weights, either.T @ weights))
        f1 = np.divide(2 * both, all_, out=np.full_like(both, np.nan), where=all_ > 0)
        return np.vstack([f1, wrong @ weights / weights.sum(0)]).T  # (b, K + 2): F1 of classes, of all entries, loss

    values = statistic(np.ones((len(y), 1)))[0]
    drawn = bootstrap(statistic, units, RESAMPLES, seed)
    there = said | y
    below, above = _open(values, np.append(_units(units, np.column_stack([there, there.any(1)])), units.max() + 1))
    # F1 = 2 J / (1 + J), J the share of the entries said or true that are both: bounds of J, carried over
    below[:-1], above[:-1] = below[:-1] / (2 - below[:-1]), 2 * above[:-1] / (1 + above[:-1])
    parts = {"f1_macro": slice(k), "f1_micro": slice(k, k + 1), "hamming_loss": slice(k + 1, k + 2)}
    return {name: _mean(values[part], drawn[:, part], below[part], above[part]) for name, part in parts.items()}


def _units(units: NDArray[Any], there: NDArray[Any]) -> NDArray[Any]:
    """How many independent units each column (n, K) has items of."""
    return np.array([len(np.unique(units[column])) for column in there.T])


def _open(values: Floats, counts: NDArray[Any]) -> tuple[Floats, Floats]:
    """How far below 1 and above 0 shares may lie that are exactly that, by Wilson's bounds of their counts."""
    low, high = wilson(np.where(values == 1, counts, 0), counts)
    return np.where(values == 1, 1 - low, 0.0), np.where(values == 0, high, 0.0)


def _mean(values: Floats, drawn: Floats, below: Floats, above: Floats) -> Metric:
    """The mean of class values (K,) with an interval from resamples (b, K) and what these cannot doubt (K,)."""
    value, k = float(defined_mean(values)), max(1, int((~np.isnan(values)).sum()))
    low, high = percentile(defined_mean(drawn.T))
    down = np.hypot(value - low, np.sqrt(np.square(below).sum()) / k)
    up = np.hypot(high - value, np.sqrt(np.square(above).sum()) / k)
    return {"value": value, "low": float(np.clip(value - down, 0, 1)), "high": float(np.clip(value + up, 0, 1))}


def per_class(p: NDArray[Any], y: NDArray[Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Of each class "class", "n" and precision, recall, specificity, f1 with Wilson's intervals."""
    said, y = np.asarray(p) >= 0.5, np.asarray(y) > 0
    rows = []
    for c, name in enumerate(classes):
        table = np.bincount(2 * y[:, c] + said[:, c], minlength=4).reshape(2, 2)
        rows.append(classes_of(table, ("", name))[1])
    return rows


def calibration_error(p: NDArray[Any], y: NDArray[Any]) -> float:
    """The expected calibration error of all entries, each a question with the answers no and yes."""
    flat = np.asarray(p, np.float64).ravel()
    return expected_calibration_error(np.stack([1 - flat, flat], 1), (np.asarray(y).ravel() > 0).astype(np.int64))
