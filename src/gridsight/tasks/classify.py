"""Classify: one label an item. Outputs are logits (N, num_classes); the loss is cross-entropy.

Label smoothing: Szegedy et al., arXiv:1512.00567, section 7. Class weights multiply each item's loss, and the sum is
divided by the sum of the weights, as `torch.nn.functional.cross_entropy` does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gridsight.measure import metrics
from gridsight.measure.calibration import Calibration, fit_calibration, softmax
from gridsight.tasks import TASKS, Predicted, Task, choices, measure_choices, weight_of


@TASKS.register("classify", ndims=(1, 2, 3))
class Classify(Task):
    """One of `classes` an item."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        weights = self.weights.to(outputs) if self.weights is not None else None
        return F.cross_entropy(outputs, y, weights, label_smoothing=self.label_smoothing)

    def mass(self, y: Tensor) -> float:
        return float(len(y)) if self.weights is None else weight_of(self.weights, y)

    def goodness(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(1) == y).double()

    def score(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        found = super().score(outputs, y)
        share = min(found["accuracy"], 1 - 1 / len(y))  # a perfect score has an error too
        return found | {"error": max(share * (1 - share) / len(y), 0.0) ** 0.5}

    @classmethod
    def progress(cls, goodness: float) -> str:
        return f"accuracy {goodness:.2%}".replace("%", " %")

    def calibrate(self, outputs: np.ndarray, y: np.ndarray, coverage: float) -> Calibration:
        return fit_calibration(self._natural(outputs), y, coverage)

    def predict(self, outputs: np.ndarray, calibration: Calibration) -> Predicted:
        return {"probabilities": softmax(self._natural(outputs), calibration.temperature)}

    def _natural(self, outputs: np.ndarray) -> np.ndarray:
        """Logits for classes as frequent as `prior` says, from a network that met them equally often.

        Bayes' rule: the ratio of two posteriors changes as that of their priors (Saerens, Latinne and Decaestecker,
        Neural Computation 14, 2002, equation 2.4).
        """
        return outputs + np.log(np.maximum(self.prior, 1e-12) * len(self.prior)) if self.prior else outputs

    def decode(self, predicted: Predicted, threshold: float | None) -> list[dict[str, Any]]:
        return choices(self.classes, predicted["probabilities"], threshold)

    def measure(
        self, predicted: Predicted, plain: Predicted, y: np.ndarray, groups: Sequence[str | None] | None
    ) -> dict[str, Any]:
        return measure_choices(self.classes, predicted["probabilities"], plain["probabilities"], y, groups)

    def headline(self, result: Mapping[str, Any]) -> list[str]:
        return metrics.headline(result["metrics"], np.sum(result["confusion"], 1))

    def chance(self) -> tuple[str, float]:
        return "balanced_accuracy", 1 / len(self.classes)

    def worst(self, predicted: Predicted, y: np.ndarray) -> np.ndarray:
        p = predicted["probabilities"]
        wrong = np.flatnonzero(p.argmax(1) != y)
        return wrong[np.argsort(-p[wrong].max(1), kind="stable")]

    @staticmethod
    def example(ndim: int, seed: int = 0) -> tuple[Tensor, Tensor, Sequence[str]]:
        """A batch (16, 1, *spatial) with labels that a small network learns: a bright half, left or right."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(16, 1, *[8] * ndim, generator=generator) * 0.1
        y = torch.arange(16) % 2
        x[y == 0, ..., :4] += 1
        x[y == 1, ..., 4:] += 1
        return x, y, ("left", "right")
