"""Which labels are suspicious: confident learning, from what networks that never saw an item say of it.

Northcutt, Jiang and Chuang, Confident Learning, JAIR 70 (2021), sections 3.1 and 3.2. A class's threshold is the mean
probability of that class among the items labelled with it. An item counts as of the likeliest class that reaches its
own threshold; items labelled i that count as j make the confident joint C[i, j], whose rows, scaled to the counts of
the labels, say how many labels are wrong. About so many items are suspected ("prune by noise rate" over all classes):
those with the lowest normalised margin, the probability of the given class less that of the likeliest other one.
Differences: two standard errors more are suspected than expected, and only items with a negative margin, and at most a
share of all, however poor the network.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gridsight.measure.intervals import Floats

Ints = NDArray[np.int64]

MOST = 0.07
"""Share of the items that are suspected at most: a network that is often wrong would suspect as many good labels."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """`items` (m,) by suspicion, the class (m,) that is likelier for each, and `margins` (m,) in [-1, 0).

    `expected` is how many labels are wrong by the confident joint; `threshold` the margin up to which items are in;
    `capped` says that more were expected than are named.
    """

    items: Ints
    suggested: Ints
    margins: Floats
    expected: float
    threshold: float
    capped: bool


def thresholds(probabilities: Floats, given: Ints) -> Floats:
    """(K,) the mean probability of each class among the items (n,) labelled with it; 1 for classes without any."""
    count = np.bincount(given, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(given)), given]
    total = np.bincount(given, own, minlength=probabilities.shape[1])
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def confident_joint(probabilities: Floats, given: Ints) -> Ints:
    """(K, K) how many items labelled i count as j; an item that reaches no class's threshold counts nowhere."""
    k = probabilities.shape[1]
    reached = np.where(probabilities >= thresholds(probabilities, given), probabilities, -1.0)
    counted, joint = reached.max(1) >= 0, np.zeros((k, k), np.int64)
    np.add.at(joint, (given[counted], reached.argmax(1)[counted]), 1)
    return joint


def wrong_labels(joint: Ints, given: Ints) -> float:
    """How many of the labels (n,) are wrong: what is off the diagonal once each row has its label's count.

    A label none of whose items counts anywhere is taken for right.
    """
    count, rows = np.bincount(given, minlength=len(joint)), joint.sum(1)
    wrong = rows - np.diag(joint)
    return float((count * wrong / np.maximum(rows, 1)).sum())


def margins(probabilities: Floats, given: Ints) -> tuple[Floats, Ints]:
    """(n,) the given class's probability less that of the likeliest other class, and that class (n,)."""
    rows = np.arange(len(given))
    others = probabilities.copy()
    others[rows, given] = -1.0
    best = others.argmax(1)
    return probabilities[rows, given] - others[rows, best], best


def suspects(probabilities: Floats, given: Ints, most: float = MOST) -> Suspects:
    """The suspicious ones of labels (n,), from out-of-fold probabilities (n, K)."""
    expected = wrong_labels(confident_joint(probabilities, given), given)
    margin, best = margins(probabilities, given)
    order = np.argsort(margin, kind="stable")
    wanted, limit = round(expected + 2 * expected**0.5), int(most * len(given))
    chosen = order[: min(wanted, limit)]
    chosen = chosen[margin[chosen] < 0]
    threshold = float(margin[chosen[-1]]) if len(chosen) else -1.0
    return Suspects(chosen, best[chosen], margin[chosen], expected, threshold, expected > limit)
