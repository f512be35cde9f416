"""Grade: one of several ordered classes. Outputs (N, K - 1) are logits of "the grade is above k".

Source: Frank and Hall, "A simple approach to ordinal classification", ECML 2001: one binary question a threshold, here
answered by one network and learned together (Niu et al., CVPR 2016). Probabilities of the grades are differences of
neighbouring answers, made to fall first where a network contradicts itself. Metric: Cohen's kappa with quadratic
weights (Cohen, Psychological Bulletin 70, 1968), and the mean distance in grades.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gridsight.measure import ordinal
from gridsight.measure.calibration import Calibration, fit_calibration, softmax
from gridsight.measure.metrics import Metric
from gridsight.tasks import TASKS, Predicted, Task, choices, measure_choices, stated, weight_of

NAMES = {"quadratic_kappa", "mae"}


@TASKS.register("grade", ndims=(1, 2, 3))
class Grade(Task):
    """One of the ordered `classes` an item; y (N,) int64 counts them from the lowest."""

    metric = "closeness"

    @property
    def num_outputs(self) -> int:
        return len(self.classes) - 1

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        above = (y[:, None] > torch.arange(self.num_outputs, device=y.device)).to(outputs.dtype)
        above = above * (1 - self.label_smoothing) + self.label_smoothing / 2
        each = F.binary_cross_entropy_with_logits(outputs, above, reduction="none").mean(1)
        if self.weights is None:
            return each.mean()
        weights = self.weights.to(outputs)[y]
        return (each * weights).sum() / weights.sum()

    def mass(self, y: Tensor) -> float:
        return float(len(y)) if self.weights is None else weight_of(self.weights, y)

    def goodness(self, outputs: Tensor, y: Tensor) -> Tensor:
        """1 for the right grade, less by the square of the distance, 0 at the far end: what quadratic kappa counts."""
        distance = (_log_probabilities(outputs).argmax(1) - y).double() / self.num_outputs
        return 1 - distance.square()

    def calibrate(self, outputs: np.ndarray, y: np.ndarray, coverage: float) -> Calibration:
        return fit_calibration(self._logits(outputs), y, coverage)

    def predict(self, outputs: np.ndarray, calibration: Calibration) -> Predicted:
        return {"probabilities": softmax(self._logits(outputs), calibration.temperature)}

    def decode(self, predicted: Predicted, threshold: float | None) -> list[dict[str, Any]]:
        p = predicted["probabilities"]
        expected = p @ np.array(self._numbers or range(len(self.classes)), np.float64)
        answers = choices(self.classes, p, threshold)
        return [answer | {"expected": float(e)} for answer, e in zip(answers, expected, strict=True)]

    def measure(
        self, predicted: Predicted, plain: Predicted, y: np.ndarray, groups: Sequence[str | None] | None
    ) -> dict[str, Any]:
        p = predicted["probabilities"]
        found = measure_choices(self.classes, p, plain["probabilities"], y, groups)
        return found | {"metrics": ordinal.summary(p, y, groups) | found["metrics"]}

    def headline(self, result: Mapping[str, Any]) -> list[str]:
        return ["quadratic_kappa", "mae", "accuracy"]

    def chance(self) -> tuple[str, float]:
        return "quadratic_kappa", 0.0

    def worst(self, predicted: Predicted, y: np.ndarray) -> np.ndarray:
        p = predicted["probabilities"]
        distance = np.abs(p.argmax(1) - y)
        wrong = np.flatnonzero(distance)
        return wrong[np.lexsort((-p[wrong].max(1), -distance[wrong]))]

    def words(self, name: str, metric: Metric) -> str:
        if name not in NAMES:
            return super().words(name, metric)
        return stated(metric, "{:.3f}".format)

    @property
    def _numbers(self) -> list[float]:
        try:
            return [float(name) for name in self.classes]
        except ValueError:
            return []

    def _logits(self, outputs: np.ndarray) -> np.ndarray:
        return _log_probabilities(torch.from_numpy(np.asarray(outputs, np.float64))).numpy()

    @staticmethod
    def example(ndim: int, seed: int = 0) -> tuple[Tensor, Tensor, Sequence[str]]:
        """A batch (16, 1, *spatial) whose brightness is the grade."""
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(16) % 3
        x = torch.randn(16, 1, *[8] * ndim, generator=generator) * 0.1
        return x + y.view(-1, 1, *[1] * ndim) - 1, y, ("0", "1", "2")


def _log_probabilities(outputs: Tensor) -> Tensor:
    """(N, K) log-probabilities of the grades from logits (N, K - 1) of being above each."""
    above = outputs.cummin(1).values.sigmoid()
    ends = torch.ones_like(above[:, :1])
    p = torch.cat([ends, above], 1) - torch.cat([above, torch.zeros_like(ends)], 1)
    return p.clamp_min(1e-9).log()
