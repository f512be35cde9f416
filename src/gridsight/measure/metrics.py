"""Classification metrics from probabilities (n, K) and targets (n,): values with intervals, under scikit-learn's names.

Conventions. The predicted class is the likeliest (the first of equals). Confusion (K, K) has true classes in rows. A
share 0 / 0 (the precision of a class never predicted, the recall of one without items) is undefined: NaN, not 0 or 1.
Means over classes leave out what is undefined: `balanced_accuracy` is over classes that have items, `f1_macro` over
classes that have items or are predicted, `roc_auc` over those with items inside and outside, `average_precision` over
those with items. With two classes the second is the positive one for `roc_auc` and `average_precision`; with more, each
class stands against the rest and the classes' values are averaged (macro). `average_precision` is the sum of precision
times the rise in recall, a step function (Davis and Goadrich, ICML 2006, why no straight lines). `brier_score_loss` is
the mean over items of the squared distance of the probabilities from the truth, halved for two classes.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridsight.measure.intervals import Floats, bootstrap, effective_count, group_numbers, percentile, wilson

Metric = dict[str, float]
"""{"value", "low", "high"}: a value with its 95 % interval, NaN where it is undefined."""

RESAMPLES, CURVE_RESAMPLES = 1000, 400
_CURVE_WORK = 10_000_000  # items times classes beyond which areas under curves come without an interval


def scores(probabilities: NDArray[Any], targets: NDArray[Any], classes: Sequence[str]) -> dict[str, float]:
    """Each metric of probabilities (n, K) against targets (n,), without intervals."""
    p, y, _ = _checked(probabilities, targets, len(classes))
    one = np.ones((len(y), 1))
    values = np.concatenate([_plain(p, y, one), Curves(p, y)(one)], 1)[0]
    return dict(zip(_PLAIN + _CURVES, values.tolist(), strict=True))


def summary(
    probabilities: NDArray[Any],
    targets: NDArray[Any],
    classes: Sequence[str],
    groups: NDArray[Any] | Sequence[Any] | None = None,
    seed: int = 0,
) -> dict[str, Metric]:
    """Each metric of probabilities (n, K) against targets (n,) as {"value", "low", "high"}, 95 % intervals.

    accuracy: Wilson (with groups: on the effective number of items). balanced_accuracy: Wilson's of the recalls, put
    together. The rest: percentiles of a bootstrap over groups, or items where there are none; 1,000 resamples, 400 for
    the areas under curves (fewer beyond a million items times classes), from `seed`. A perfect value, which no resample
    can doubt, takes its lower bound from Wilson's of its counts.
    """
    p, y, k = _checked(probabilities, targets, len(classes))
    n = len(y)
    units = group_numbers(None if groups is None else np.asarray(groups), n)
    hits = p.argmax(1) == y
    values = scores(p, y, classes)
    plain, curves = partial(_plain, p, y), Curves(p, y)
    resamples = int(np.clip(100_000_000 // n, 200, RESAMPLES))
    low, high = percentile(bootstrap(plain, units, resamples, seed))
    if n * k <= _CURVE_WORK:
        curve_resamples = int(np.clip(400_000_000 // (n * k), 100, CURVE_RESAMPLES))
        curve_low, curve_high = percentile(bootstrap(curves, units, curve_resamples, seed))
    else:
        curve_low = curve_high = np.full(2, np.nan)
    bounds = zip([*low, *curve_low], [*high, *curve_high], strict=True)
    found = {name: (value, *bound) for (name, value), bound in zip(values.items(), bounds, strict=True)}

    effective = float(n) if groups is None else effective_count(hits, units)
    found["accuracy"] = (values["accuracy"], *wilson(values["accuracy"] * effective, effective))
    found["balanced_accuracy"] = _balanced(hits, y, None if groups is None else units, found["balanced_accuracy"])
    # how many independent units each class has, for what a perfect value still leaves open
    unit, own = np.unique(np.stack([units, y], 1), axis=0).T
    of_one_class = np.bincount(unit)[unit] == 1
    inside = np.bincount(own, minlength=k)
    outside = unit[-1] + 1 - np.bincount(own[of_one_class], minlength=k)
    counts = {"f1_macro": inside, "average_precision": inside}
    counts["roc_auc"] = np.minimum(inside, outside)
    for name, count in counts.items():
        if k == 2 and name in _CURVES:
            count = count[1:]
        if found[name][0] == 1:
            found[name] = (1.0, _perfect_low(count[count > 0]), 1.0)
    return {name: {"value": float(v), "low": float(a), "high": float(b)} for name, (v, a, b) in found.items()}


def confusion_matrix(predicted: NDArray[Any], targets: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """(K, K) counts: row = true class, column = predicted class, from class indices (n,)."""
    pairs = np.asarray(targets, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(confusion: NDArray[Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Of each class: "class", "n" and precision, recall, specificity, f1 as {"value", "low", "high"}, Wilson intervals.

    F1 = 2 J / (1 + J) rises with J = tp / (tp + fp + fn), which is a share: its interval is that of J, carried over.
    """
    confusion = np.asarray(confusion, np.float64)
    tp, true, taken, n = np.diag(confusion), confusion.sum(1), confusion.sum(0), confusion.sum()
    shares = {
        "precision": (tp, taken),
        "recall": (tp, true),
        "specificity": (n - true - taken + tp, n - true),
        "f1": (tp, true + taken - tp),
    }
    columns = {}
    for name, (part, whole) in shares.items():
        with np.errstate(invalid="ignore"):
            bounds = [part / whole, *wilson(part, whole)]
        columns[name] = [2 * b / (1 + b) for b in bounds] if name == "f1" else bounds
    return [
        {"class": label, "n": int(true[c])}
        | {
            name: {key: float(bound[c]) for key, bound in zip(("value", "low", "high"), bounds, strict=True)}
            for name, bounds in columns.items()
        }
        for c, label in enumerate(classes)
    ]


def headline(metrics: Mapping[str, Metric], counts: Sequence[int]) -> list[str]:
    """Names of the metrics to print first, given the items a class: accuracy is never alone when classes are uneven.

    Uneven: the rarest class has under a quarter of the most frequent one's items, which for two classes is a
    prevalence under 20 %. Then a model that never says it scores well on accuracy, so the others stand beside it.
    """
    present = [count for count in counts if count]
    names = ["accuracy"]
    if present and min(present) < max(present) / 4:
        names += ["balanced_accuracy", "f1_macro"] + (["average_precision"] if len(counts) == 2 else [])
    return [name for name in names if name in metrics]


_PLAIN = ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "brier_score_loss")
_CURVES = ("roc_auc", "average_precision")


def _plain(p: Floats, y: NDArray[np.int64], weights: Floats) -> Floats:
    """The metrics `_PLAIN` (b, 5) under each of the weightings (n, b)."""
    from scipy import sparse

    n, k = p.shape
    predicted, rows = p.argmax(1), np.arange(n)
    right = np.flatnonzero(predicted == y)
    # sums of weights over the items of each class: (K, b)
    true, taken, tp = (
        sparse.csr_array((np.ones(len(items)), (label[items], items)), shape=(k, n)) @ weights
        for items, label in ((rows, y), (rows, predicted), (right, y))
    )
    known = p[rows, y]
    # scikit-learn's clip: a certain mistake costs 36 nats, not infinity
    tiny = np.finfo(np.float64).eps
    log_loss = -np.log(np.clip(known, tiny, 1 - tiny))
    brier = ((p * p).sum(1) - 2 * known + 1) / (2 if k == 2 else 1)
    total = weights.sum(0)
    return np.stack(
        [
            tp.sum(0) / total,
            _mean_of_shares(tp, true),
            _mean_of_shares(2 * tp, true + taken),
            log_loss @ weights / total,
            brier @ weights / total,
        ],
        1,
    )


class Curves:
    """Area under the ROC curve and average precision (b, 2) under each of the weightings (n, b) of n items.

    Sorting is done once; a resample then costs one sum along the sorted items a class, which is why curves have fewer
    resamples. Equal scores are one threshold: the ROC area counts their pairs as half won.
    """

    def __init__(self, p: Floats, y: NDArray[np.int64]) -> None:
        k = p.shape[1]
        first = 1 if k == 2 else 0
        self._rank(p[:, first:], y[:, None] == np.arange(first, k))

    @classmethod
    def of_labels(cls, p: Floats, truth: NDArray[np.bool_]) -> "Curves":
        """The same for questions that are independent of each other: truth (n, K) says which of them hold."""
        found = cls.__new__(cls)
        found._rank(p, truth)
        return found

    def _rank(self, p: Floats, truth: NDArray[np.bool_]) -> None:
        self.columns = []
        for c in range(p.shape[1]):
            order = np.argsort(-p[:, c], kind="stable")
            score, positive = p[order, c], np.flatnonzero(truth[order, c])
            ends = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)  # last of each run of equals
            run = np.searchsorted(ends, positive)
            last, first = ends[run], np.append(0, ends + 1)[run]
            # among the positives alone: how many come up to the end of the run, and before its start
            upto, before = np.searchsorted(positive, last, "right"), np.searchsorted(positive, first, "left")
            self.columns.append((order, positive, last, first, upto, before))

    def __call__(self, weights: Floats) -> Floats:
        return defined_mean(self.each(weights))

    def each(self, weights: Floats) -> Floats:
        """The same of every class by itself: (K, b, 2), NaN where it is undefined."""
        areas, precisions = [], []
        for order, positive, last, first, upto, before in self.columns:
            total = _running(weights[order])
            won = weights[order[positive]]
            hits = _running(won)
            seen, true = total[last + 1], hits[upto]
            ahead = (seen - true + total[first] - hits[before]) / 2  # negatives ranked higher, equals half
            pairs = hits[-1] * (total[-1] - hits[-1])
            areas.append(_share(pairs - (won * ahead).sum(0), pairs))
            # where nothing is seen yet the item itself has weight 0
            precision = np.divide(true, seen, out=np.zeros_like(seen), where=seen > 0)
            precisions.append(_share((won * precision).sum(0), hits[-1]))
        return np.stack([np.stack(areas), np.stack(precisions)], 2)


def _running(values: Floats) -> Floats:
    """Sums of the first 0, 1, ..., m values along the first axis: (m, b) -> (m + 1, b)."""
    out = np.zeros((values.shape[0] + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=out[1:])
    return out


def _share(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean_of_shares(part: Floats, whole: Floats) -> Floats:
    """Mean over classes of part / whole (K, b), classes whose whole is 0 left out: (b,)."""
    return defined_mean(_share(part, whole))


def defined_mean(values: Floats) -> Floats:
    """Mean along the first axis of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _share(np.where(defined, values, 0).sum(0), defined.sum(0).astype(np.float64))


def _balanced(
    hits: NDArray[np.bool_], y: NDArray[Any], units: NDArray[Any] | None, drawn: tuple[float, float, float]
) -> tuple[float, float, float]:
    """(value, low, high) of the mean recall: Wilson bounds of the recalls, added as variances (as `_perfect_low`).

    A recall of 0 or 1 is the same in every resample, so a network that answers one class alone would seem certain. With
    groups, which may lie across classes, no narrower than the `drawn` interval of the bootstrap.
    """
    inside = [y == c for c in np.unique(y)]
    recalls = np.array([hits[own].mean() for own in inside])
    counts = np.array([own.sum() if units is None else effective_count(hits[own], units[own]) for own in inside], float)
    low, high = wilson(recalls * counts, counts)
    mean = float(recalls.mean())
    below, above = (float(np.sqrt(np.square(recalls - bound).sum())) / len(recalls) for bound in (low, high))
    if units is None:
        return mean, mean - below, mean + above
    return mean, float(np.fmin(mean - below, drawn[1])), float(np.fmax(mean + above, drawn[2]))


def _perfect_low(counts: NDArray[Any]) -> float:
    """Lower bound of a mean of shares that are all 1, `counts` units each: their Wilson bounds added as variances
    (the method of variance estimates recovery: Zou and Donner, Stat. Med. 27, 2008)."""
    low, _ = wilson(counts, counts)
    return float(1 - np.sqrt(np.square(1 - low).sum()) / len(counts))


def _checked(probabilities: NDArray[Any], targets: NDArray[Any], k: int) -> tuple[Floats, NDArray[np.int64], int]:
    """Both as float64 and int64; shapes that do not fit, values that are no probabilities and no items are errors."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(targets, np.int64)
    if p.ndim != 2 or p.shape != (len(y), k) or not len(y) or k < 2:
        raise ValueError(f"probabilities {p.shape} and targets {y.shape} do not fit {k} classes")
    if y.min() < 0 or y.max() >= k or not np.isfinite(p).all() or p.min() < 0:
        raise ValueError("targets must be class indices and probabilities finite and not negative")
    return p, y, k
