"""What the report shows, read from a run folder and computed as plain numbers; `figures.py` only draws them.

Every file but settings.toml may be missing, unfinished or damaged: the part is None and `notes` says why, in words.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gridsight.core.run import RunFolder
from gridsight.data.spec import DataSpec


@dataclass(frozen=True)
class Line:
    """A named curve; `summary` is what its legend adds (an area, a final value)."""

    label: str
    x: np.ndarray
    y: np.ndarray
    summary: str = ""
    steps: bool = False


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: for each bin that has items, its edges, count, mean probability, share right, interval."""

    left: np.ndarray
    right: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ece: float


@dataclass(frozen=True)
class Predictions:
    """The test predictions: probabilities (n, K), target (n,), paths, and the raw input (m, C, *spatial) of the worst."""

    probabilities: np.ndarray
    target: np.ndarray
    paths: np.ndarray
    classes: tuple[str, ...]
    worst_index: np.ndarray
    worst_x: np.ndarray
    groups: np.ndarray | None = None

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each item."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the most probable class."""
        return self.probabilities.max(1)


@dataclass(frozen=True)
class Contents:
    """Everything the page needs; what is None or empty is said to be missing."""

    name: str
    settings: Mapping[str, Any]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    spec: DataSpec | None
    epochs: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    predictions: Predictions | None
    notes: tuple[str, ...] = field(default=())

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, from the predictions or the data description."""
        if self.predictions is not None:
            return self.predictions.classes
        return self.spec.classes if self.spec is not None else ()

    @property
    def confusion(self) -> np.ndarray | None:
        """Counts (K, K), true in rows: as the result states them, else from the predictions."""
        stated = self.result.get("confusion")
        if stated is not None:
            return np.asarray(stated, np.int64)
        if self.predictions is None:
            return None
        k = len(self.classes)
        pairs = self.predictions.target * k + self.predictions.predicted
        return np.bincount(pairs, minlength=k * k).reshape(k, k)

    @property
    def calibration(self) -> Mapping[str, Any]:
        """The result's calibration entry, or an empty one."""
        return self.result.get("calibration") or {}


def load(run: RunFolder) -> Contents:
    """Read a run folder; what cannot be read is left out and noted."""
    notes: list[str] = []

    def tried(what: str, read: Any, default: Any) -> Any:
        try:
            return read()
        except Exception as error:  # a damaged file must not cost the rest of the page
            notes.append(f"{what} cannot be read and is left out ({type(error).__name__}: {error}).")
            return default

    plan = tried("plan.json", lambda: run.read_json(run.plan), None) or {}
    rows = main_phase(tried("metrics.jsonl", run.read_metrics, []))
    return Contents(
        name=run.path.resolve().name,
        settings=tried("settings.toml", lambda: tomllib.loads(run.settings.read_text(encoding="utf-8")), {}),
        plan=plan,
        environment=tried("environment.json", lambda: run.read_json(run.environment), None) or {},
        result=tried("result.json", lambda: run.read_json(run.result), None) or {},
        spec=tried("the data description", lambda: DataSpec.from_dict(plan["spec"]), None) if "spec" in plan else None,
        epochs=[row for row in rows if row.get("event") == "epoch"],
        events=[row for row in rows if row.get("event") not in (None, "epoch")],
        predictions=tried("predictions.npz", lambda: _predictions(run), None),
        notes=tuple(notes),
    )


def _predictions(run: RunFolder) -> Predictions | None:
    if not run.predictions.exists():
        return None
    with np.load(run.predictions, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    return Predictions(
        probabilities=found["probabilities"].astype(np.float64),
        target=found["target"],
        paths=found["paths"],
        classes=tuple(str(name) for name in found["classes"]),
        worst_index=found["worst_index"],
        worst_x=found["worst_x"],
        groups=found.get("groups"),
    )


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
    """(true positives, false positives) when everything at or above each distinct value of `p` is taken, largest first."""
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


def curves(found: Predictions, kind: Any, area: str, limit: int = 10) -> tuple[list[Line], tuple[Any, ...] | None]:
    """One line a class up to `limit` classes, else their mean and the band of the middle 80 % of classes.

    `kind` is `roc` or `precision_recall`; a class without items, or without any others, has no curve.
    """
    k = len(found.classes)
    has = [c for c in range(k) if 0 < (found.target == c).sum() < len(found.target)]
    each = {c: kind(found.probabilities[:, c], found.target == c) for c in has}
    if k <= limit:
        return [Line(found.classes[c], x, y, f"{area} {score:.4f}") for c, (x, y, score) in each.items()], None
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


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> Line:
    """Accuracy of the most confident items against their share of all; equal confidences are answered together."""
    true, false = thresholds(confidence, right)
    return Line("accuracy", (true + false) / len(right), true / (true + false))


def before_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities before division by the temperature: softmax(T log p), as p is softmax(z / T)."""
    logits = temperature * np.log(np.maximum(probabilities, 1e-38))
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def at_threshold(confidence: np.ndarray, right: np.ndarray, threshold: float) -> tuple[float, float | None]:
    """(share answered, accuracy of the answers or None without any) when less sure than `threshold` is "unsure"."""
    answered = confidence >= threshold
    return float(answered.mean()), float(right[answered].mean()) if answered.any() else None


def main_phase(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of the network that was kept: those of folds and of calibration runs are left out."""
    phases = list(dict.fromkeys(row.get("phase") for row in rows))
    kept = next((p for p in ("training", "final network") if p in phases), phases[-1] if phases else None)
    return [row for row in rows if row.get("phase") == kept]


# TEMP until measure stands
def wilson(k, n, z=1.959963984540054):
    k, n = np.asarray(k, float), np.maximum(np.asarray(n, float), 1e-9)
    p = k / n
    mid = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return mid - half, mid + half


def reliability(confidence, right, bins=15):
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    has = count > 0
    conf = np.bincount(which, confidence, bins)[has] / count[has]
    hits = np.bincount(which, right, bins)[has]
    low, high = wilson(hits, count[has])
    acc = hits / count[has]
    ece = float((count[has] * abs(conf - acc)).sum() / count.sum())
    return Bins(edges[:-1][has], edges[1:][has], count[has], conf, acc, low, high, ece)


def confused(of):
    return list(of.result.get("confused") or [])


def per_class(of):
    return of.result.get("per_class") or []
