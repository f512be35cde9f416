"""A confusion matrix in words: the mistakes that a reader should know of, most frequent first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_in_words(confusion: NDArray[Any], classes: Sequence[str], most: int = 3) -> list[str]:
    """Up to `most` phrases from counts (K, K), true classes in rows.

    >>> confusion_in_words(np.array([[91, 7], [2, 100]]), ["9", "4"])
    ['most often takes 9 for 4 (7 of 98)', 'then 4 for 9 (2 of 102)']
    """
    counts = np.asarray(confusion).astype(np.int64)
    total = counts.sum(1)
    wrong = counts - np.diag(np.diag(counts))
    if not counts.sum():
        return []
    if not wrong.any():
        return [f"makes no mistake in {counts.sum():,}"]
    true, taken = np.nonzero(wrong)
    count = wrong[true, taken]
    # of equally frequent mistakes, first the one that hits the larger share of its class
    order = np.lexsort((taken, true, -count / total[true], -count))[:most]
    return [
        f"{'then' if i else 'most often takes'} {classes[true[j]]} for {classes[taken[j]]} "
        f"({count[j]:,} of {total[true[j]]:,})"
        for i, j in enumerate(order)
    ]
