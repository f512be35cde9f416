"""Numbers behind the report's curves that `measure` does not have: training, precision-recall, ROC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Kind = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, float]]
Band = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Line:
    """A named curve; `summary` is what its legend adds (an area, a final value)."""

    label: str
    x: np.ndarray
    y: np.ndarray
    summary: str = ""
    steps: bool = False


def series(epochs: Sequence[Mapping[str, Any]], key: str, label: str) -> Line | None:
    """One column of the epoch rows against the epoch; a value that is missing or not finite is a gap."""
    if not any(row.get(key) is not None for row in epochs):
        return None
    x = np.array([row["epoch"] for row in epochs], float)
    y = np.array([np.nan if row.get(key) is None else row[key] for row in epochs], float)
    return Line(label, x, y)


def epoch_of(step: float, epochs: Sequence[Mapping[str, Any]]) -> float:
    """Where on the epoch axis an event at `step` lies."""
    return float(np.interp(step, [row["step"] for row in epochs], [row["epoch"] for row in epochs]))


def thresholds(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(true positives, false positives) of taking all at or above each distinct value of `p`, largest first."""
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # equal values are taken together
    true = np.cumsum(positive[order])[last]
    return true, last + 1 - true


def roc(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(false positive rate, true positive rate, area under them) of one class against the rest."""
    true, false = thresholds(p, positive)
    x = np.append(0.0, false / max(1, false[-1]))
    y = np.append(0.0, true / max(1, true[-1]))
    return x, y, float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def precision_recall(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(recall, precision, average precision) of one class against the rest; the area has no interpolation."""
    true, false = thresholds(p, positive)
    precision = true / (true + false)
    recall = true / max(1, true[-1])
    return recall, precision, float(np.sum(np.diff(recall, prepend=0.0) * precision))


def by_class(
    probabilities: np.ndarray, target: np.ndarray, classes: Sequence[str], kind: Kind, area: str, limit: int = 10
) -> tuple[list[Line], Band | None]:
    """One line a class up to `limit` classes, else their mean and the band of the middle 80 % of classes.

    `target` is the class of each item (n,), or what is true of it (n, K). `kind` is `roc` or `precision_recall`; a
    class without items, or without any others, has no curve.
    """
    k = len(classes)
    truth = target > 0 if target.ndim == 2 else target[:, None] == np.arange(k)
    has = [c for c in range(k) if 0 < truth[:, c].sum() < len(truth)]
    each = {c: kind(probabilities[:, c], truth[:, c]) for c in has}
    if k <= limit:
        return [Line(classes[c], x, y, f"{area} {score:.4f}") for c, (x, y, score) in each.items()], None
    if not each:
        return [], None
    grid = np.linspace(0, 1, 201)
    if kind is roc:
        stack = np.stack([np.interp(grid, x, y) for x, y, _ in each.values()])
    else:  # the precision at the first threshold that reaches the recall: linear interpolation would flatter
        stack = np.stack([y[np.minimum(np.searchsorted(x, grid), len(y) - 1)] for x, y, _ in each.values()])
    mean = float(np.mean([score for _, _, score in each.values()]))
    low, high = np.percentile(stack, [10, 90], axis=0)
    return [Line(f"mean of {len(each)} classes", grid, stack.mean(0), f"{area} {mean:.4f}")], (grid, low, high)


def before_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities before division by the temperature: softmax(T log p), as p is softmax(z / T)."""
    logits = temperature * np.log(np.maximum(probabilities, 1e-38))
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def at_threshold(confidence: np.ndarray, right: np.ndarray, threshold: float) -> tuple[float, float | None]:
    """(share answered, accuracy of the answers or None without any) when less sure than `threshold` is "unsure"."""
    answered = confidence >= threshold
    return float(answered.mean()), float(right[answered].mean()) if answered.any() else None
