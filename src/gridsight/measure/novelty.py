"""Is an input of the kind that a network was trained on? The distance of what its stages say from what they said there.

After Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018,
arXiv:1807.03888: of every stage, the Mahalanobis distance of its features from their mean over the training data. What
differs: one Gaussian for all classes (Ren et al., arXiv:2106.09022, show that what the classes share carries most of
it), deviations of channels beside their means, a covariance shrunk towards its diagonal (Schaefer and Strimmer 2005's
idea with a fixed share), and no stage weighted by labelled outliers, which nobody has: each stage's distance is
expressed in deviations from its mean over held-back data, and the stage that finds the input strangest counts.

A high score says "unlike the training data", not "wrong"; a low one promises nothing about the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gridsight.measure.intervals import Floats

SHRINK = 0.1
"""Share of the diagonal in the covariance."""
WIDEST = 256
"""Features of a stage beyond which it is summarised by the channels' means alone, and those by their first so many."""
QUANTILE = 0.99
"""Share of the held-back items that count as known."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """Of each stage `means` (D,) and `whitens` (D, D), with which |(f - mean) W| is the distance, and its mean and
    deviation over held-back items in `scales`; a score above `threshold` is unlike the training data.

    `from_training`: the held-back items were trained on, so the threshold is somewhat low.
    """

    means: tuple[np.ndarray, ...]
    whitens: tuple[np.ndarray, ...]
    scales: tuple[tuple[float, float], ...]
    threshold: float
    from_training: bool = False

    @cached_property
    def whitens64(self) -> tuple[Floats, ...]:
        """`whitens` in the type that distances are computed in: to turn them anew for one item takes longer than it."""
        return tuple(whiten.astype(np.float64) for whiten in self.whitens)


def fit_novelty(
    features: Sequence[np.ndarray], held: Sequence[np.ndarray], quantile: float = QUANTILE, from_training: bool = False
) -> Novelty:
    """From features (n, D) of every stage on training items, and on items held back from them."""
    means, whitens, scales = [], [], []
    for known, other in zip(features, held, strict=True):
        f = _narrow(known)
        mean = f.mean(0)
        covariance = np.cov(f - mean, rowvar=False, ddof=0).reshape(f.shape[1], f.shape[1])
        # a channel that never moves has variance 0: a millionth of the others' keeps the inverse finite
        floor = 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-12)
        diagonal = np.diag(np.diag(covariance) + floor)
        values, vectors = np.linalg.eigh((1 - SHRINK) * covariance + SHRINK * diagonal)
        means.append(mean.astype(np.float32))
        whitens.append((vectors / np.sqrt(np.maximum(values, floor * SHRINK))).astype(np.float32))
        d = _distance(_narrow(other), means[-1], whitens[-1])
        scales.append((float(d.mean()), float(d.std()) or 1.0))
    found = Novelty(tuple(means), tuple(whitens), tuple(scales), 0.0, from_training)
    threshold = float(np.quantile(novelty(found, held), quantile))
    return Novelty(found.means, found.whitens, found.scales, threshold, from_training)


def novelty(fitted: Novelty, features: Sequence[np.ndarray]) -> Floats:
    """(n,) scores of features (n, D) of every stage: how many deviations the strangest stage is from what it knows."""
    each = [
        (_distance(_narrow(f), mean, whiten) - middle) / spread
        for f, mean, whiten, (middle, spread) in zip(
            features, fitted.means, fitted.whitens64, fitted.scales, strict=True
        )
    ]
    scores = np.max(each, 0)
    return np.where(np.isfinite(scores), scores, np.inf)


def _distance(f: np.ndarray, mean: np.ndarray, whiten: np.ndarray) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.square((f - mean).astype(np.float64) @ whiten).sum(1))


def _narrow(f: np.ndarray) -> np.ndarray:
    f = np.asarray(f, np.float64)
    return f if f.shape[1] <= WIDEST else f[:, : min(WIDEST, f.shape[1] // 2)]
