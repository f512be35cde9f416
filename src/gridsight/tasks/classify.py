"""Classify: one label an item. Outputs are logits (N, num_classes); the loss is cross-entropy.

Label smoothing: Szegedy et al., arXiv:1512.00567, section 7. Class weights multiply each item's loss, and the sum is
divided by the sum of the weights. (`torch.nn.functional.cross_entropy` weighs the smoothed targets instead: at 1:99 the
tenth that smoothing gives to the rare class outweighs the label of every common item, and all are called rare.)
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
        if self.weights is None:
            return F.cross_entropy(outputs, y, label_smoothing=self.label_smoothing)
        each = F.cross_entropy(outputs, y, label_smoothing=self.label_smoothing, reduction="none")
        weights = self.weights.to(outputs)[y]
        return (each * weights).sum() / weights.sum()

    def mass(self, y: Tensor) -> float:
        return float(len(y)) if self.weights is None else weight_of(self.weights, y)

    def goodness(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(1) == y).double()

    def score(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        found = super().score(outputs, y)
        if not self.balanced:
            share = _open(found["accuracy"], len(y))
            return found | {"error": (share * (1 - share) / len(y)) ** 0.5}
        good = self.goodness(outputs, y).cpu()
        own = [good[y.cpu() == k] for k in y.unique().tolist()]
        means = [float(part.mean()) for part in own]
        shares = [_open(mean, len(part)) for mean, part in zip(means, own, strict=True)]
        variance = sum(share * (1 - share) / len(part) for share, part in zip(shares, own, strict=True))
        return found | {"accuracy": sum(means) / len(means), "error": variance**0.5 / len(means)}

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
        return metrics.headline(result["metrics"], [row["n"] for row in result["per_class"]])

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


def _open(share: float, n: int) -> float:
    """A share of n, as if one more of them were wrong where all are right, and right where all are wrong."""
    return min(max(share, 1 / (n + 1)), n / (n + 1))
