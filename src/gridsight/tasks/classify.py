"""Classify: one label an item. Outputs are logits (N, num_classes); the loss is cross-entropy.

Label smoothing: Szegedy et al., arXiv:1512.00567, section 7. Class weights multiply each item's loss, and the sum is
divided by the sum of the weights, as `torch.nn.functional.cross_entropy` does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gridsight.data.spec import DataSpec
from gridsight.tasks import TASKS


@TASKS.register("classify", ndims=(1, 2, 3))
class Classify:
    """One of `classes` an item."""

    def __init__(self, classes: Sequence[str], *, label_smoothing: float = 0.0, weights: Sequence[float] = ()) -> None:
        self.classes = tuple(classes)
        self.label_smoothing = label_smoothing
        self.weights = torch.tensor(weights, dtype=torch.float32) if weights else None

    @classmethod
    def outputs(cls, spec: DataSpec) -> int:
        """How many numbers an item the network's head gives."""
        return spec.num_classes

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of logits (N, K) against class indices (N,), a scalar."""
        weights = self.weights.to(logits.device) if self.weights is not None else None
        return F.cross_entropy(logits, y, weights, label_smoothing=self.label_smoothing)

    def mass(self, y: Tensor) -> float:
        """What the mean of `loss` divides by: the number of items, or the sum of their class weights."""
        return float(len(y)) if self.weights is None else float(self.weights.to(y.device)[y].sum())

    def score(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """The figures that choose an epoch: accuracy, and the plain cross-entropy (no smoothing, no weights)."""
        return {
            "accuracy": float((logits.argmax(1) == y).double().mean()),
            "loss": float(F.cross_entropy(logits.double(), y)),
        }

    def encode(self, labels: Sequence[str]) -> Tensor:
        """Class indices (N,) int64 of labels."""
        index = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([index[label] for label in labels])

    def decode(self, probabilities: np.ndarray, threshold: float | None) -> list[dict[str, Any]]:
        """One answer an item from probabilities (N, K): the likeliest label; `unsure` below the threshold."""
        best = probabilities.argmax(1)
        return [
            {
                "label": self.classes[k],
                "probability": float(row[k]),
                "probabilities": {name: float(p) for name, p in zip(self.classes, row, strict=True)},
                "unsure": None if threshold is None else bool(row[k] < threshold),
            }
            for k, row in zip(best, probabilities, strict=True)
        ]

    @staticmethod
    def example(ndim: int, seed: int = 0) -> tuple[Tensor, Tensor, Sequence[str]]:
        """A batch (16, 1, *spatial) with labels that a small network learns: a bright half, left or right."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(16, 1, *[8] * ndim, generator=generator) * 0.1
        y = torch.arange(16) % 2
        x[y == 0, ..., :4] += 1
        x[y == 1, ..., 4:] += 1
        return x, y, ("left", "right")


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """n / (K n_k) of each class: every class weighs the same in the loss; a class without items weighs 0."""
    total, present = sum(counts), sum(count > 0 for count in counts)
    return tuple(total / (present * count) if count else 0.0 for count in counts)
