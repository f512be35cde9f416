"""Regress: a number an item, in the data's own unit, with an interval. Outputs (N, 1) are (y - center) / scale.

The loss is Huber's with its bend at one deviation (Huber, Ann. Math. Statist. 35, 1964): squared errors near, absolute
ones far, so that one wrong entry does not rule a batch. The interval is split conformal (Papadopoulos et al. 2002; Lei
et al., JASA 113, 2018, algorithm 2): as wide as the quantile of the absolute errors on data not trained on, so that a
new item of the same kind lies inside with at least the probability asked for, whatever the errors look like.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gridsight.measure import regression
from gridsight.measure.calibration import Calibration
from gridsight.measure.metrics import Metric
from gridsight.tasks import TASKS, Predicted, Task, stated


@TASKS.register("regress", ndims=(1, 2, 3))
class Regress(Task):
    """A number in `unit` an item; y (N,) float64."""

    metric = "minus_mae"

    @property
    def num_outputs(self) -> int:
        return 1

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.huber_loss(outputs[:, 0], self._scaled(y).to(outputs.dtype))

    def mixed(self, y: Tensor, other: Tensor, share: float) -> Sequence[tuple[float, Tensor]]:
        """Between two numbers lies a number."""
        return ((1.0, share * y + (1 - share) * other),)

    def goodness(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Minus the absolute error, in deviations of the training data."""
        return -(outputs[:, 0].double() - self._scaled(y)).abs()

    @classmethod
    def progress(cls, goodness: float) -> str:
        return f"error {-goodness:.4f} deviations"

    def calibrate(self, outputs: np.ndarray, y: np.ndarray, coverage: float) -> Calibration:
        errors = np.abs(self._values(outputs) - y)
        return Calibration(True, coverage=coverage, margin=regression.conformal_margin(errors, coverage))

    def predict(self, outputs: np.ndarray, calibration: Calibration) -> Predicted:
        value = self._values(outputs)
        margin = np.nan if calibration.margin is None else calibration.margin
        return {"value": value, "low": value - margin, "high": value + margin}

    def decode(self, predicted: Predicted, threshold: float | None) -> list[dict[str, Any]]:
        columns = (predicted["value"].tolist(), predicted["low"].tolist(), predicted["high"].tolist())
        return [
            {"value": value, "low": low, "high": high, "unit": self.unit}
            for value, low, high in zip(*columns, strict=True)
        ]

    def measure(
        self, predicted: Predicted, plain: Predicted, y: np.ndarray, groups: Sequence[str | None] | None
    ) -> dict[str, Any]:
        return {
            "metrics": regression.summary(predicted["value"], predicted["low"], predicted["high"], y, groups),
            "unit": self.unit,
            "calibration": {},
        }

    def headline(self, result: Mapping[str, Any]) -> list[str]:
        return ["mae", "r2", *(["interval_coverage"] if "interval_coverage" in result["metrics"] else [])]

    def chance(self) -> tuple[str, float]:
        return "r2", 0.0

    def worst(self, predicted: Predicted, y: np.ndarray) -> np.ndarray:
        return np.argsort(-np.abs(predicted["value"] - y), kind="stable")

    def words(self, name: str, metric: Metric) -> str:
        if name == "interval_coverage":
            return super().words(name, metric)
        unit = f" {self.unit}" if self.unit and name in ("mae", "rmse") else ""
        return stated(metric, "{:.4g}".format, unit)

    def _scaled(self, y: Tensor) -> Tensor:
        return (y.double() - self.center) / self.scale

    def _values(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs, np.float64)[:, 0] * self.scale + self.center

    @staticmethod
    def example(ndim: int, seed: int = 0) -> tuple[Tensor, Tensor, Sequence[str]]:
        """A batch (16, 1, *spatial) whose brightness is the number."""
        generator = torch.Generator().manual_seed(seed)
        y = torch.linspace(-1, 1, 16, dtype=torch.float64)
        x = torch.randn(16, 1, *[8] * ndim, generator=generator) * 0.02
        return x + y.float().view(-1, 1, *[1] * ndim), y, ()
