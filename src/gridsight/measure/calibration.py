"""Calibration of probabilities and abstention: one temperature, how far confidence is from truth, when to say "unsure".

Fitted on validation data that nothing else was fitted on, never on the test split. Bins are fixed before looking.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridsight.measure.intervals import Floats, wilson

BINS = 15
"""Number of confidence bins, as Guo et al. use."""

_COLDEST, _HOTTEST = 0.01, 100.0
_TRUST = 1.0
"""Items that the network's own confidence, temperature 1, counts for beside those that the temperature is fitted on."""


@dataclass(frozen=True)
class Calibration:
    """`temperature` divides the logits; an answer below `threshold` is unsure (None: no data to fit it on).

    `coverage` is the share of validation items that the threshold lets through; `quantiles` are those of the confidence
    over the validation items, evenly spaced from the least to the largest, so that another can be chosen. `margin` is
    the half-width of the interval around a number that holds a share `coverage` of them.
    """

    calibrated: bool = False
    temperature: float = 1.0
    threshold: float | None = None
    coverage: float | None = None
    quantiles: tuple[float, ...] = ()
    margin: float | None = None


def fit_calibration(logits: NDArray[Any], y: NDArray[Any], coverage: float) -> Calibration:
    """Temperature by likelihood, then the threshold that lets a share `coverage` of the items through."""
    temperature = fit_temperature(logits, y)
    probabilities = softmax(logits, temperature)
    threshold = unsure_threshold(probabilities, coverage)
    return Calibration(True, temperature, threshold, coverage, quantiles_of(probabilities.max(1)))


def quantiles_of(confidence: NDArray[Any]) -> tuple[float, ...]:
    """101 evenly spaced quantiles, from the least to the largest."""
    return tuple(float(q) for q in np.quantile(confidence, np.linspace(0, 1, 101)))


def describe_calibration(p: NDArray[Any], before: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    """Expected calibration error of probabilities with and without the temperature."""
    return {"ece": expected_calibration_error(p, y), "ece_before": expected_calibration_error(before, y)}


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Probabilities (n, K), float64, of logits (n, K) divided by the temperature."""
    z = np.asarray(logits, np.float64) / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def fit_temperature(logits: NDArray[Any], targets: NDArray[Any]) -> float:
    """The temperature (0.01 to 100) under which softmax(logits / temperature) is likeliest for targets (n,).

    Guo et al. (ICML 2017, arXiv:1706.04599, section 4.2). The log loss is convex in 1 / temperature, so Newton's steps
    inside a shrinking bracket reach its one minimum: no start value, no learning rate, the same bits each time.
    Deviations: as in Platt's method (1999, section 2.2) an item's target is 1 - 1 / (n + 2), the rest shared by the
    other classes, about one mistake in all: validation items that are all right would else ask for temperature 0. And
    1 / temperature has a prior with its peak at 1, Gamma(2, 1), which counts as one item: a few answers of hardly
    trained networks (small data are calibrated by short folds) ask for 0.07 or 100, which then ruin those of the final
    one. Mean log loss of 24 runs of 12 or 30 items: 0.580 without it, 0.520 with it, 0.521 at temperature 1.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(targets, np.int64)
    n, k = z.shape
    rest = 1 / (n + 2)
    z = z - z.mean(1, keepdims=True)
    # sum over classes of target times logit; the others' logits add up to minus the class's own, by centring
    wanted = float(((1 - rest) * z[np.arange(n), y] - rest / (k - 1) * z[np.arange(n), y]).sum())
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    beta = 1.0
    for _ in range(200):
        p = softmax(z, 1 / beta)
        mean = (p * z).sum(1)
        slope = float(mean.sum()) - wanted + _TRUST * (1 - 1 / beta)
        curve = float(((p * z * z).sum(1) - mean * mean).sum()) + _TRUST / beta**2
        low, high = (low, beta) if slope > 0 else (beta, high)
        step = beta - slope / curve
        new = step if low < step < high else (low * high) ** 0.5
        if abs(new - beta) <= 1e-12 * beta:
            break
        beta = new
    return 1 / beta


@dataclass(frozen=True)
class Bin:
    """Items whose confidence (probability of the likeliest class) is in (low, high]: how many, how sure, how right.

    `accuracy_low` and `accuracy_high` are Wilson's 95 % bounds; all is NaN where n is 0.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def reliability(
    probabilities: NDArray[Any], targets: NDArray[Any], bins: int = BINS, *, adaptive: bool = False
) -> list[Bin]:
    """The reliability table of probabilities (n, K): `bins` bins of equal width, or (adaptive) of equal number.

    Adaptive bins hold n / bins items each, give or take one, in the order of their confidence (Nixon et al.,
    arXiv:1904.01685); a bin then starts where the one before ended.
    """
    confidence, right = _confidence(probabilities, targets)
    order = np.argsort(confidence, kind="stable")
    if adaptive:
        parts = [part for part in np.array_split(order, bins) if len(part)]
        tops = [float(confidence[part[-1]]) for part in parts]
        edges = np.array([0.0, *tops])
    else:
        edges = np.linspace(0, 1, bins + 1)
        cuts = np.searchsorted(confidence[order], edges[1:-1], "right")
        parts = np.split(order, cuts)
    table = []
    for low, high, part in zip(edges[:-1], edges[1:], parts, strict=True):
        n, hits = len(part), int(right[part].sum())
        bounds = wilson(hits, n)
        mean = float(confidence[part].mean()) if n else np.nan
        table.append(
            Bin(float(low), float(high), n, mean, hits / n if n else np.nan, float(bounds[0]), float(bounds[1]))
        )
    return table


def expected_calibration_error(
    probabilities: NDArray[Any], targets: NDArray[Any], bins: int = BINS, *, adaptive: bool = False
) -> float:
    """Mean over items of |confidence - accuracy| of their bin (Naeini et al., AAAI 2015; Guo et al., equation 3).

    It is biased upwards: n items of a perfectly calibrated model give about 0.8 sqrt(bins p (1 - p) / n), not 0.
    """
    table = [row for row in reliability(probabilities, targets, bins, adaptive=adaptive) if row.n]
    return sum(row.n * abs(row.confidence - row.accuracy) for row in table) / sum(row.n for row in table)


def unsure_threshold(probabilities: NDArray[Any], coverage: float) -> float:
    """The confidence below which to answer "unsure", so that at least a share `coverage` of these items is answered.

    The highest such threshold: with coverage 1 it is the lowest confidence seen, with 0 it lies above the highest.
    """
    if not 0 <= coverage <= 1:
        raise ValueError(f"coverage is a share from 0 to 1, not {coverage}")
    confidence = np.sort(np.asarray(probabilities, np.float64).max(1))[::-1]
    answered = int(np.ceil(coverage * len(confidence) - 1e-9))
    return float(np.nextafter(confidence[0], np.inf) if answered == 0 else confidence[answered - 1])


def risk_coverage(probabilities: NDArray[Any], targets: NDArray[Any]) -> tuple[Floats, Floats, float]:
    """(coverage, risk, area): the share answered and the share of wrong answers among it, surest items first.

    One point a distinct confidence, as no threshold can part equals. The area is the mean of the risk over the items'
    ranks (AURC: Geifman, Uziel and El-Yaniv, ICLR 2019), equals in their expected order: lower is better.
    """
    confidence, right = _confidence(probabilities, targets)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    count = ends + 1
    # inside a run of equals the expected number of mistakes rises in a straight line
    ranks = np.arange(1, len(order) + 1)
    expected = np.interp(ranks, np.append(0, count), np.append(0, wrong[ends]))
    return count / len(order), wrong[ends] / count, float((expected / ranks).mean())


def _confidence(probabilities: NDArray[Any], targets: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Probability of the likeliest class (n,), and whether it is the true one."""
    p = np.asarray(probabilities, np.float64)
    return p.max(1), p.argmax(1) == np.asarray(targets)
