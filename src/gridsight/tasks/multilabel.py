"""Multilabel: any number of `classes` an item, none included. Outputs are logits (N, K), each a yes-or-no question.

The loss is the mean binary cross-entropy over items and classes. `weights` multiply what a class that is there costs,
so that a rare class is not learned as "never". One temperature cools all logits. An answer lists the
classes at or above one half; it is unsure where its least certain class is too near to one half.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gridsight.measure import labelsets
from gridsight.measure.calibration import Calibration, fit_temperature, quantiles_of, unsure_threshold
from gridsight.tasks import TASKS, Predicted, Task


@TASKS.register("multilabel", ndims=(1, 2, 3))
class Multilabel(Task):
    """Several of `classes` an item; y (N, K) float32 holds ones where a class is there."""

    metric = "f1_samples"

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = y.to(outputs.dtype)
        if self.weights is None:
            target = y * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(outputs, target)
        # not `pos_weight`, which would weigh what smoothing says of classes that are not there as well
        there, absent = (
            F.binary_cross_entropy_with_logits(outputs, torch.full_like(outputs, target), reduction="none")
            for target in (1 - self.label_smoothing / 2, self.label_smoothing / 2)
        )
        return (y * self.weights.to(outputs) * there + (1 - y) * absent).mean()

    def goodness(self, outputs: Tensor, y: Tensor) -> Tensor:
        """F1 of each item's set of classes; 1 where both are empty."""
        said, true = (outputs >= 0).double(), y.double()
        both = said.sum(1) + true.sum(1)
        return torch.where(both > 0, 2 * (said * true).sum(1) / both.clamp_min(1), 1.0)

    def calibrate(self, outputs: np.ndarray, y: np.ndarray, coverage: float) -> Calibration:
        z = np.asarray(outputs, np.float64).ravel()
        # softmax([0, z] / t) is sigmoid(z / t)
        temperature = fit_temperature(np.stack([np.zeros_like(z), z], 1), y.ravel().astype(np.int64))
        confidence = _confidence(self.predict(outputs, Calibration(temperature=temperature))["probabilities"])
        threshold = unsure_threshold(confidence[:, None], coverage)
        return Calibration(True, temperature, threshold, coverage, quantiles_of(confidence))

    def predict(self, outputs: np.ndarray, calibration: Calibration) -> Predicted:
        z = torch.from_numpy(np.asarray(outputs, np.float64)) / calibration.temperature
        return {"probabilities": z.sigmoid().numpy()}

    def decode(self, predicted: Predicted, threshold: float | None) -> list[dict[str, Any]]:
        p = predicted["probabilities"]
        return [
            {
                "labels": [name for name, share in zip(self.classes, row, strict=True) if share >= 0.5],
                "probabilities": {name: float(share) for name, share in zip(self.classes, row, strict=True)},
                "unsure": None if threshold is None else bool(sure < threshold),
            }
            for row, sure in zip(p, _confidence(p), strict=True)
        ]

    def measure(
        self, predicted: Predicted, plain: Predicted, y: np.ndarray, groups: Sequence[str | None] | None
    ) -> dict[str, Any]:
        p, before = predicted["probabilities"], plain["probabilities"]
        metrics, per_class = labelsets.measure(p, y, self.classes, groups)
        return {
            "metrics": metrics,
            "per_class": per_class,
            "calibration": {
                "ece": labelsets.calibration_error(p, y),
                "ece_before": labelsets.calibration_error(before, y),
            },
        }

    def headline(self, result: Mapping[str, Any]) -> list[str]:
        return ["average_precision", "f1_macro", "accuracy"]

    def chance(self) -> tuple[str, float]:
        return "roc_auc", 0.5

    def worst(self, predicted: Predicted, y: np.ndarray) -> np.ndarray:
        p = predicted["probabilities"]
        distance = np.abs(p - y).max(1)
        wrong = np.flatnonzero(((p >= 0.5) != (y > 0)).any(1))
        return wrong[np.argsort(-distance[wrong], kind="stable")]

    @staticmethod
    def example(ndim: int, seed: int = 0) -> tuple[Tensor, Tensor, Sequence[str]]:
        """A batch (16, 1, *spatial): "left" and "right" halves that are bright, each by itself."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(16, 1, *[8] * ndim, generator=generator) * 0.1
        y = torch.stack([torch.arange(16) % 2, torch.arange(16) // 2 % 2], 1).float()
        x[y[:, 0] == 1, ..., :4] += 1
        x[y[:, 1] == 1, ..., 4:] += 1
        return x, y, ("left", "right")


def _confidence(p: np.ndarray) -> np.ndarray:
    """(n,) how far the least certain class is from one half, as the probability of the likelier answer about it."""
    return np.maximum(p, 1 - p).min(1)
