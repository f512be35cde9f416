"""Every task, one a file: what the network puts out, the loss, the metrics and how an output is read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gridsight.core.registry import Registry
from gridsight.measure import metrics
from gridsight.measure.calibration import Calibration, describe_calibration
from gridsight.measure.metrics import Metric
from gridsight.measure.words import confusion_in_words

TASKS = Registry("task", "gridsight.tasks")

STATED = 100
"""Classes up to which a result holds the whole confusion, whose size grows with their square."""

Predicted = Mapping[str, np.ndarray]
"""What a calibrated model says of n items: "probabilities" (n, K), or "value", "low" and "high" (n,)."""


class Task:
    """The contract. Outputs (N, num_outputs) come from the network's head, targets `y` from `data.target.encode`.

    `classes` are the names or grades; a number has none, but a `unit`, and is learned as (y - center) / scale.
    `weights` are one a class; `prior` are the classes' shares of the data where training showed them equally often.
    `metric` names the mean of `goodness`, which chooses epochs: higher is better; with `balanced` the mean of the means
    of the classes, for data of which one class makes up nearly all.
    """

    metric: ClassVar[str] = "accuracy"

    def __init__(
        self,
        classes: Sequence[str] = (),
        *,
        label_smoothing: float = 0.0,
        weights: Sequence[float] = (),
        unit: str = "",
        center: float = 0.0,
        scale: float = 1.0,
        prior: Sequence[float] = (),
        balanced: bool = False,
    ) -> None:
        import torch

        self.classes, self.label_smoothing, self.unit = tuple(classes), label_smoothing, unit
        self.weights = torch.tensor(weights, dtype=torch.float32) if weights else None
        self.center, self.scale, self.prior, self.balanced = center, scale, tuple(prior), balanced

    @property
    def num_outputs(self) -> int:
        """How many numbers an item the network's head gives."""
        return len(self.classes)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar."""
        raise NotImplementedError

    def mass(self, y: Tensor) -> float:
        """What the mean of `loss` divides by: the number of items, or the sum of their weights."""
        return float(len(y))

    def mixed(self, y: Tensor, other: Tensor, share: float) -> Sequence[tuple[float, Tensor]]:
        """The targets, with weights, of inputs that are `share` of one item and for the rest another.

        The losses of both, as mixup has it; where a loss is linear in its target this is that of the mixed targets.
        """
        return (share, y), (1 - share, other)

    def goodness(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(N,) how good the answer about each item is, higher is better."""
        raise NotImplementedError

    def score(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        """The figures that choose an epoch: `metric` with its standard error, and the loss without weights."""
        good = self.goodness(outputs, y).double()
        error = float(good.std(correction=0)) / len(y) ** 0.5
        return {self.metric: float(good.mean()), "error": error, "loss": self.plain_loss(outputs.double(), y)}

    def plain_loss(self, outputs: Tensor, y: Tensor) -> float:
        """The mean loss without weights and smoothing."""
        weights, smoothing = self.weights, self.label_smoothing
        try:
            self.weights, self.label_smoothing = None, 0.0
            return float(self.loss(outputs, y))
        finally:
            self.weights, self.label_smoothing = weights, smoothing

    @classmethod
    def progress(cls, goodness: float) -> str:
        """A mean goodness in words, while training goes on."""
        return f"{cls.metric.replace('_', ' ')} {goodness:.4f}"

    def calibrate(self, outputs: np.ndarray, y: np.ndarray, coverage: float) -> Calibration:
        """Temperature, thresholds and widths from outputs on data that nothing else was fitted on."""
        raise NotImplementedError

    def predict(self, outputs: np.ndarray, calibration: Calibration) -> Predicted:
        """Calibrated predictions of outputs (n, num_outputs)."""
        raise NotImplementedError

    def decode(self, predicted: Predicted, threshold: float | None) -> list[dict[str, Any]]:
        """One answer an item, as `predict --json` prints it."""
        raise NotImplementedError

    def measure(
        self, predicted: Predicted, plain: Predicted, y: np.ndarray, groups: Sequence[str | None] | None
    ) -> dict[str, Any]:
        """What result.json says: "metrics" with intervals and more; `plain` are predictions without calibration."""
        raise NotImplementedError

    def headline(self, result: Mapping[str, Any]) -> list[str]:
        """Names of the metrics to print first."""
        raise NotImplementedError

    def chance(self) -> tuple[str, float]:
        """A metric of `measure`, higher for better answers, and what answers that know nothing of an item get."""
        raise NotImplementedError

    def worst(self, predicted: Predicted, y: np.ndarray) -> np.ndarray:
        """Numbers of the items that were answered wrongly, the worst first."""
        raise NotImplementedError

    def words(self, name: str, metric: Metric) -> str:
        """A metric with its interval for people: as percent where it is a share."""
        return stated(metric, lambda share: f"{100 * share:.2f} %")


def stated(metric: Metric, form: Callable[[float], str], unit: str = "") -> str:
    """A metric in words: its value, with its unit, and its interval."""
    value, low, high = f"{form(metric['value'])}{unit}", metric["low"], metric["high"]
    if math.isnan(low) or math.isnan(high):
        return f"{value} (no interval: too few items)"
    return f"{value} (95 % interval {form(low)} to {form(high)})"


def make_task(name: str, classes: Sequence[str], **options: Any) -> Task:
    """The task of that name; `options` are the arguments of `Task`."""
    return TASKS.create(name, classes=tuple(classes), **options)


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """n / (K n_k) of each class: every class weighs the same in the loss; a class without items weighs 0."""
    total, present = sum(counts), sum(count > 0 for count in counts)
    return tuple(total / (present * count) if count else 0.0 for count in counts)


def choices(classes: Sequence[str], p: np.ndarray, threshold: float | None) -> list[dict[str, Any]]:
    """The likeliest of the classes of each item, of probabilities p (n, K): the form of `predict --json`."""
    return [
        {
            "label": classes[k],
            "probability": float(row[k]),
            "probabilities": {name: float(share) for name, share in zip(classes, row, strict=True)},
            "unsure": None if threshold is None else bool(row[k] < threshold),
        }
        for k, row in zip(p.argmax(1), p, strict=True)
    ]


def measure_choices(
    classes: Sequence[str],
    p: np.ndarray,
    before: np.ndarray,
    y: np.ndarray,
    groups: Sequence[str | None] | None,
) -> dict[str, Any]:
    """Metrics, classes one by one and confusion of probabilities p (n, K); `before` are those without calibration."""
    confusion = metrics.confusion_matrix(p.argmax(1), y, len(classes))
    return {
        "metrics": metrics.summary(p, y, classes, groups),
        "per_class": metrics.per_class(confusion, classes),
        # thousands of classes would be millions of numbers, which predictions.npz tells as well
        "confusion": confusion.tolist() if len(classes) <= STATED else None,
        "confused": confusion_in_words(confusion, classes),
        "calibration": describe_calibration(p, before, y),
    }


def weight_of(weights: Tensor, y: Tensor) -> float:
    """The sum of the weights of class numbers y (N,)."""
    return float(weights.to(y.device)[y].double().sum())
